// Tells from a kernel's tick counter whether the kernel still runs.
#pragma once

#include <cstdint>
#include <optional>

namespace vmsight {

class ClockWatch {
 public:
  /// Takes a reading of jiffies_64 at a host time. True if the counter is behind what even the
  /// slowest kernel would show; then the watch starts anew. An idle, tickless kernel's counter
  /// pauses for about a second and then catches up: that is not behind.
  bool falls_behind(std::uint64_t ticks, std::uint64_t now_ns) {
    ++readings_;
    if (readings_ == 1) return restart(ticks, now_ns, false);
    const std::uint64_t elapsed = now_ns - since_ns_;
    const std::uint64_t passed = ticks - ticks_;
    if (elapsed >= patience_ns && passed < (elapsed - patience_ns) / slowest_tick_ns + 1)
      return restart(ticks, now_ns, true);
    return passed == 0 ? false : restart(ticks, now_ns, false);
  }
  std::uint64_t readings() const { return readings_; }

  static constexpr std::uint64_t patience_ns = 3'000'000'000;
  static constexpr std::uint64_t slowest_tick_ns = 10'000'000;  // HZ is at least 100

 private:
  bool restart(std::uint64_t ticks, std::uint64_t now_ns, bool verdict) {
    ticks_ = ticks;
    since_ns_ = now_ns;
    return verdict;
  }

  std::uint64_t readings_ = 0;
  std::uint64_t ticks_ = 0, since_ns_ = 0;
};

}  // namespace vmsight
