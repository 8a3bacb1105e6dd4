#include "base/ticker.h"

#include <ctime>
#include <utility>

#include "base/clock.h"

namespace vmsight {
namespace {

/// Until `at` of the monotonic clock, or until a signal.
void sleep_until(std::uint64_t at) {
  constexpr std::uint64_t second = 1'000'000'000;
  const timespec time{static_cast<std::time_t>(at / second), static_cast<long>(at % second)};
  ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr);
}

}  // namespace

Ticker::Tick Ticker::wait(const std::function<bool()>& stop) {
  std::uint64_t now = monotonic_ns();
  if (ticks_++ == 0) start_ns_ = now;
  if (period_ns_ == 0) return {.number = next_++};

  const std::uint64_t reached = (now - start_ns_) / period_ns_;
  if (reached > next_) missed_ += reached - std::exchange(next_, reached);
  const std::uint64_t due = start_ns_ + next_ * period_ns_;
  while (now < due && !stop()) {
    sleep_until(due);
    now = monotonic_ns();
  }
  const std::uint64_t late_ns = now > due ? now - due : 0;
  if (late_ns > period_ns_ / 10) ++late_;
  return {.number = next_++, .late_ns = late_ns};
}

}  // namespace vmsight
