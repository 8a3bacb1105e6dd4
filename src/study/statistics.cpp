#include "study/statistics.h"

#include <algorithm>
#include <cmath>

namespace vmsight {

double quantile(std::span<const double> ascending, double share) {
  if (ascending.empty()) return 0;
  const double place = share * static_cast<double>(ascending.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, ascending.size() - 1);
  const double part = place - static_cast<double>(below);
  return ascending[below] + part * (ascending[above] - ascending[below]);
}

Spread spread_of(std::span<const double> values) {
  if (values.empty()) return {};
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  Spread spread{.count = sorted.size(),
                .median = quantile(sorted, 0.5),
                .q1 = quantile(sorted, 0.25),
                .q3 = quantile(sorted, 0.75),
                .smallest = sorted.front(),
                .largest = sorted.back()};
  for (double& value : sorted) value = std::abs(value - spread.median);
  std::sort(sorted.begin(), sorted.end());
  spread.mad = quantile(sorted, 0.5);
  return spread;
}

void Samples::add(double value) {
  if (added_++ % stride_ != 0) return;
  if (kept_.size() == limit_) {
    std::size_t to = 0;
    for (std::size_t from = 0; from < kept_.size(); from += 2) kept_[to++] = kept_[from];
    kept_.resize(to);
    stride_ *= 2;
    if ((added_ - 1) % stride_ != 0) return;
  }
  kept_.push_back(value);
}

}  // namespace vmsight
