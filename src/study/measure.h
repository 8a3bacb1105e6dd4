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

/// `rate` 0: as many whole states a second as can be, best of the rounds. Never fails: what went
/// wrong is in Measurement::error.
Measurement measure(const VmInfo& info, std::string_view technique, double rate,
                    const MeasureOptions& options);

/// The same in a process of its own.
Measurement measure_isolated(const VmInfo& info, std::string_view technique, double rate,
                             const MeasureOptions& options);

}  // namespace vmsight
