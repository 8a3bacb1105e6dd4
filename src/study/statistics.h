// Medians and how far values lie around them: figures that survive a busy machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace vmsight {

/// What a set of values looks like. All zero if there were none.
struct Spread {
  std::size_t count = 0;
  double median = 0;
  double q1 = 0, q3 = 0;  // quartiles, interpolated
  double mad = 0;         // median of the distances from the median
  double smallest = 0, largest = 0;
};
Spread spread_of(std::span<const double> values);

/// The value below which `share` (0 to 1) of the ascending values lie, interpolated linearly.
double quantile(std::span<const double> ascending, double share);

/// Values of a loop that may run for ever, in bounded memory: when it is full every other value
/// is dropped, and from then on only every second one is kept, and so on. What is kept stays
/// spread evenly over all that were added.
class Samples {
 public:
  explicit Samples(std::size_t limit = 65536) : limit_(limit) {}
  void add(double value);
  Spread spread() const { return spread_of(kept_); }
  std::size_t kept() const { return kept_.size(); }

 private:
  std::size_t limit_;
  std::uint64_t added_ = 0, stride_ = 1;
  std::vector<double> kept_;
};

}  // namespace vmsight
