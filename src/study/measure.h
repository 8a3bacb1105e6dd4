// Measuring one technique on one VM.
#pragma once

#include <functional>
#include <string_view>

#include "study/loop.h"
#include "study/measurement.h"
#include "vmsight/guest.h"
#include "vmsight/state.h"

namespace vmsight {

struct MeasureOptions {
  double seconds = 1;     // of a round
  unsigned rounds = 5;    // at maximum rate; a given rate is measured in one
  std::string cache_dir;  // what was learnt about kernels
};

/// All that looking into a VM takes, opened by one technique.
struct Watcher {
  Guest guest;
  std::unique_ptr<StateReader> reader;
};
Result<Watcher> open_watcher(const VmInfo& info, std::string_view technique,
                             const std::string& cache_dir);
/// A few views, after which the pages that a state needs are learnt.
Result<void> warm_up(StateReader& reader);

/// How often a technique looks on, and with what.
struct Pace {
  double rate = 0;  // 0: as many whole states a second as can be, best of the rounds
  double cpu = 0;   // percent of a core; 0: all that there are
};

/// Never fails: what went wrong is in Measurement::error.
Measurement measure(const VmInfo& info, std::string_view technique, const Pace& pace,
                    const MeasureOptions& options);

/// The same in a process of its own, which is the one that is held to a part of a core.
Measurement measure_isolated(const VmInfo& info, std::string_view technique, const Pace& pace,
                             const MeasureOptions& options);

}  // namespace vmsight
