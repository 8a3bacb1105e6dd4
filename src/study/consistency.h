// How often a view of a guest that runs contradicts the guest or itself, by way of reading.
//
//   naive      live, and nothing is proven: what a reader that knows of no inconsistency shows
//   live       live, each record proven by itself: what vmsight shows without --consistent
//   proven     the whole proven to be of one moment, without a pause; views that fail are counted
//   halted     the guest halted for the view
//   snapshot   a copy of one moment
//
// Views are taken in turns, some of each way, so that all ways meet the same guest.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "study/statistics.h"
#include "vmsight/state.h"
#include "vmsight/vm.h"

namespace vmsight {

struct ConsistencyStudyOptions {
  std::uint64_t views = 1000;  // of each way
  std::string cache_dir;
  std::function<void(std::string_view)> progress;
};

/// In how many views something was, and how many records had it in all.
struct Occurrence {
  std::uint64_t views = 0, records = 0;
  void add(std::uint64_t of_one_view) {
    views += of_one_view != 0;
    records += of_one_view;
  }
};

/// By the names of the document: "died", "zombie", "process without its parent".
using Occurrences = std::map<std::string, Occurrence, std::less<>>;

struct WayOutcome {
  std::string way, technique;
  std::string error, hint;              // why there are no views of it, or ""
  std::uint64_t views = 0, failed = 0;  // whole ones; proofs that did not hold
  std::uint64_t processes = 0;          // records of processes, of all views
  Samples view_ns, pause_ns;
  Occurrences extrinsic;       // what was noticed because the guest ran: ViewInfo::inconsistencies
  Occurrences intrinsic;       // validity, from the guest's own fields
  Occurrences contradictions;  // what a view says against itself
  Samples lasted_ns;           // of intrinsic states: from the first view that has one to the last
};

/// A row each way, in the order above; a way that cannot be had has an error.
std::vector<WayOutcome> study_consistency(const VmInfo& info,
                                          const ConsistencyStudyOptions& options);

/// What one state says against itself: records whose process is missing, a number that two processes have ...
std::map<std::string, std::uint64_t, std::less<>> contradictions_of(const State& state);

}  // namespace vmsight
