// Reading again what a running guest changed under our hands.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <thread>

#include "state/context.h"

namespace vmsight {

/// Fetches anew what was read since begin_object(). A vCPU that the host does not run stands in
/// the middle of what it was doing, so it is given a moment first, longer each time.
inline void prepare_retry(Context& context, unsigned attempt) {
  std::this_thread::sleep_for(std::chrono::microseconds(125) * (1u << std::min(attempt, 8u)));
  context.reader.refetch();
  ++context.state.view.retries;
}

/// Calls read_once(), which appends to `records` and says whether it met nothing broken, until it
/// did not or StateOptions::attempts are used up. Only the last call's records and problems stay.
template <typename Records, typename ReadOnce>
void read_whole(Context& context, Records& records, ReadOnce read_once) {
  const std::size_t kept = records.size(), known = context.state.problems.size();
  const bool live = context.reader.memory().is_live();
  for (unsigned attempt = 1;; ++attempt) {
    context.reader.begin_object();
    const bool whole = read_once();
    if (whole || !live || attempt >= context.options.attempts) break;
    records.resize(kept);
    context.state.problems.resize(std::min(known, context.state.problems.size()));
    prepare_retry(context, attempt);
  }
  context.reader.clear_fault();
}

}  // namespace vmsight
