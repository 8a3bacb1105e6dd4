#include "study/loop.h"

#include "base/clock.h"
#include "base/ticker.h"

namespace vmsight {
namespace {

constexpr double ns_per_second = 1e9;

void count(const State& state, std::uint64_t took_ns, LoopOutcome& into) {
  ++into.views;
  into.view_ns.add(static_cast<double>(took_ns));
  into.pause_ns.add(static_cast<double>(state.view.pause_ns));
  into.pause_total_ns += state.view.pause_ns;
  into.bytes.add(static_cast<double>(state.view.bytes_read));
  into.pages.add(static_cast<double>(state.view.pages));
  into.processes = state.processes.size();
  into.problems += state.problems.size() + state.problems_left_out;
}

}  // namespace

double LoopOutcome::rate() const {
  if (elapsed_ns == 0) return 0;
  return static_cast<double>(views) * ns_per_second / static_cast<double>(elapsed_ns);
}

Result<LoopOutcome> run_loop(StateReader& reader, const LoopLimits& limits) {
  LoopOutcome outcome;
  State state;
  const std::uint64_t start = monotonic_ns();
  const auto end = start + static_cast<std::uint64_t>(limits.seconds * ns_per_second);
  const auto over = [&] {
    return (limits.stop != nullptr && limits.stop->load()) ||
           (limits.seconds > 0 && monotonic_ns() >= end);
  };
  Ticker ticker(limits.rate > 0 ? static_cast<std::uint64_t>(ns_per_second / limits.rate) : 0);
  while (!over()) {
    ticker.wait(over);
    if (over()) break;
    const Stopwatch watch;
    VMSIGHT_TRY_VOID(reader.read({}, state));
    count(state, watch.elapsed_ns(), outcome);
  }
  outcome.elapsed_ns = monotonic_ns() - start;
  outcome.missed = ticker.missed();
  outcome.late = ticker.late();
  return outcome;
}

}  // namespace vmsight
