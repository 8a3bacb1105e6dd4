// Between the interface of engines and the eBPF program: a kernel as the program needs to know it,
// orders as it evaluates them, events as hits.
#pragma once

#include <span>

#include "probe/engine.h"
#include "probe/kvm/shared.h"

namespace vmsight::kvm {

/// unsupported if something is missing in the kernel, or the VM's memory is too scattered.
Result<guest> describe_guest(const Vm& vm, Kernel& kernel, GuestMemory& memory);

/// unsupported if the order asks for more than the program has room for.
Result<probe> describe_probe(const ProbeOrder& order);

/// The filter asks for nothing but the task and the CPU: it can be evaluated before anything is read.
bool filters_early(const ProbeOrder& order);

/// bad_data if the event is cut short; then `hit` makes no sense. `hit.registers.rip` is the site, in the
/// process's own address space for user programs: the stack is as it is where the function begins, at its return too.
Result<void> read_event(std::span<const std::byte> bytes, const ProbeSite& site, Hit& hit);

}  // namespace vmsight::kvm
