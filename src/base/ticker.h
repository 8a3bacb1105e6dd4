// A schedule of equal steps, and how well it was kept.
#pragma once

#include <cstdint>
#include <functional>

namespace vmsight {

/// Ticks are due at start, start + period, start + 2 * period ... A tick that is not begun by the
/// time the next is due is missed and left out: work that takes too long lowers the rate, it does
/// not pile up.
class Ticker {
 public:
  /// `period_ns` 0: no waiting at all, every tick is due at once.
  explicit Ticker(std::uint64_t period_ns) : period_ns_(period_ns) {}

  struct Tick {
    std::uint64_t number = 0;   // of the schedule, from 0; gaps are missed ticks
    std::uint64_t late_ns = 0;  // how long after its time it began
  };
  /// Waits until the next tick is due; the first one is due at once. A signal that interrupts the
  /// wait ends it if `stop` then says so: the tick is not to be used.
  Tick wait(const std::function<bool()>& stop);

  std::uint64_t ticks() const { return ticks_; }
  /// Ticks that began more than a tenth of the period after their time.
  std::uint64_t late() const { return late_; }
  std::uint64_t missed() const { return missed_; }

 private:
  std::uint64_t period_ns_;
  std::uint64_t start_ns_ = 0, next_ = 0;
  std::uint64_t ticks_ = 0, late_ = 0, missed_ = 0;
};

}  // namespace vmsight
