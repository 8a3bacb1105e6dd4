// halt-map, halt-read and halt-interface: any live access, composed with any halter.
#pragma once

#include "view/paused_memory.h"
#include "vmsight/halt.h"
#include "vmsight/vm.h"

namespace vmsight {

/// What is opened is the technique `name`.
template <auto open_access, auto open_halter>
Result<std::unique_ptr<GuestMemory>> open_halted(const Vm& vm, std::string_view name,
                                                 std::chrono::milliseconds max_halt) {
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> access, open_access(vm));
  VMSIGHT_TRY(std::unique_ptr<Halter> halter, open_halter(vm, max_halt));
  return std::unique_ptr<GuestMemory>(
      std::make_unique<PausedMemory>(std::string(name), std::move(access), std::move(halter)));
}

}  // namespace vmsight
