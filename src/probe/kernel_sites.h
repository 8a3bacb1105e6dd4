// Finding sites in the guest's kernel and its modules.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vmsight/probe.h"

namespace vmsight {

/// Most functions that one pattern may stand for.
inline constexpr std::size_t max_pattern_sites = 1000;

/// The sites that a text without user part stands for; a pattern may stand for many, sorted by
/// address. not_found, with the nearest names as hint; ambiguous if a name stands for several
/// functions, naming their addresses; usage if the offset leaves the function.
Result<std::vector<ProbeSite>> find_kernel_sites(Kernel& kernel, const Site& site);

/// Of many names those that are most like `name`, the best first; at most five.
class NearestNames {
 public:
  explicit NearestNames(std::string_view name) : name_(name) {}
  void offer(std::string_view candidate);
  /// "did you mean a, b or c?", "" if nothing is near.
  std::string hint() const;

 private:
  struct Near {
    std::size_t distance;
    std::string name;
  };
  std::string_view name_;
  std::vector<Near> best_;
};

}  // namespace vmsight
