// The yardstick: what this host's KVM takes for one exit to user space and back, whatever is done
// with it. Measured with the smallest VM there can be: one vCPU, one page, and in it a loop of `out`.
#pragma once

#include <cstdint>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

class RawExit {
 public:
  /// permission or unsupported, with a hint, if /dev/kvm cannot be used.
  static Result<RawExit> open();
  /// Nanoseconds that so many round trips take: entering the guest, its `out`, leaving the kernel.
  Result<std::uint64_t> run(unsigned exits);

 private:
  RawExit() = default;
  Result<void> set_up();
  Result<void> set_registers();

  UniqueFd kvm_, vm_, vcpu_;
  Mapping page_, run_;
};

}  // namespace vmsight
