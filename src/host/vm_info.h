// From a PID to what is known of its VM, without asking QEMU.
#pragma once

#include "host/command_line.h"
#include "host/process.h"
#include "vmsight/vm.h"

namespace vmsight {

/// What /proc says of this process. vm_gone, permission; not_found if it is not a QEMU.
Result<VmInfo> describe_vm(pid_t pid);

/// The VM of exactly this process: vm_gone if the PID belongs to another one now.
Result<VmInfo> find_same_vm(const ProcessId& vm);

/// What the guest was given, DIMMs and virtio-mem included; of it the firmware keeps a little.
std::uint64_t memory_of(const Vm& vm);

/// Whether the guest may have more memory than -m says: DIMMs, virtio-mem, or room to plug in some.
bool may_have_plugged_memory(const VmInfo& info);

}  // namespace vmsight
