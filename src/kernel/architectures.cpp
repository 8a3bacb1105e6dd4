#include <array>

#include "kernel/architecture.h"
#include "kernel/x86_64/x86_64.h"

namespace vmsight {

std::span<const Architecture* const> architectures() {
  static constexpr std::array<const Architecture*, 1> all{&x86_64};
  return all;
}

}  // namespace vmsight
