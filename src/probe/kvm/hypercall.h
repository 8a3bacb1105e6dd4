// The trap in user programs: a hypercall in place of the `endbr64` at a function's beginning.
//
//   f3 0f 1e fa   endbr64        what the compiler put there; it does nothing
//   3e 0f 01 d9   ds vmmcall     exits; KVM tells user code "not permitted" in RAX and skips it
//   3e 0f 01 c1   ds vmcall      the same on Intel's CPUs
//
// Only the instruction of the host's own vendor may be used: the other one KVM mends to the right
// one, three bytes of it at RIP, where the prefix is, and the guest's program dies of the rest.
//
// RAX is lost. Where functions begin nobody needs it, but for those with `...` in their prototype:
// AL has how many vector registers they are given.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "vmsight/kernel.h"
#include "vmsight/memory.h"
#include "vmsight/result.h"

namespace vmsight {

inline constexpr std::size_t user_trap_size = 4;
inline constexpr std::string_view endbr64{"\xf3\x0f\x1e\xfa", user_trap_size};

/// Of this host. unsupported if its CPU has no virtualisation.
Result<std::string> user_trap();

/// unsupported if hypercalls of this VM are not KVM's own: it gives them to its Hyper-V or Xen
/// part, which answers user code with a fault. `arguments` are QEMU's.
Result<void> check_hypercalls(std::span<const std::string> arguments);
/// The same by what the guest's kernel takes its hypervisor for.
Result<void> check_hypercalls(Kernel& kernel, GuestMemory& memory);

}  // namespace vmsight
