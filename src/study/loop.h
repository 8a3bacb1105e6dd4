// Looking into a guest again and again: as fast as can be, or by the clock.
#pragma once

#include <atomic>
#include <cstdint>

#include "study/statistics.h"
#include "vmsight/state.h"

namespace vmsight {

struct LoopLimits {
  double rate = 0;     // views a second; 0: one after the other
  double seconds = 0;  // 0: until stopped
  const std::atomic<bool>* stop = nullptr;
};

/// What a loop did. Times in nanoseconds.
struct LoopOutcome {
  std::uint64_t views = 0;
  std::uint64_t elapsed_ns = 0;
  std::uint64_t missed = 0;  // ticks that passed while the view before them was still being read
  std::uint64_t late = 0;    // ticks that began more than a tenth of the period after their time
  Samples view_ns, pause_ns, bytes, pages;
  std::uint64_t pause_total_ns = 0;
  std::size_t processes = 0;   // in the last view
  std::uint64_t problems = 0;  // of all views
  double rate() const;         // views a second, as achieved
};

/// Reads whole states until a limit is reached. The first error of a view ends it.
Result<LoopOutcome> run_loop(StateReader& reader, const LoopLimits& limits);

}  // namespace vmsight
