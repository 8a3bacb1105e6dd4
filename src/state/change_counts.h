// Sequence counts that the kernel raises whenever names or mounts change anywhere.
#pragma once

#include "vmsight/kernel.h"
#include "vmsight/memory.h"

namespace vmsight {

class ChangeCounts {
 public:
  static Result<ChangeCounts> resolve(Kernel& kernel, GuestMemory& memory);

  /// Before the view: nothing may be read, not even into a cache, until this was called.
  Result<void> begin(GuestMemory& memory);

  /// Did a rename begin or end since? Always true if the kernel hides its count.
  Result<bool> renamed(GuestMemory& memory) const { return changed(memory, rename_); }
  Result<bool> mounted(GuestMemory& memory) const { return changed(memory, mount_); }

 private:
  struct Count {
    std::optional<GuestPhys> at;
    std::uint32_t before = 0;
  };
  static Result<std::uint32_t> read(GuestMemory& memory, GuestPhys at);
  static Result<bool> changed(GuestMemory& memory, const Count& count);

  Count rename_, mount_;
};

}  // namespace vmsight
