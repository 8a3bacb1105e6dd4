// From a PID to what is known of its VM, without asking QEMU.
#pragma once

#include "vm/command_line.h"
#include "vm/process.h"
#include "vmsight/vm.h"

namespace vmsight {

/// What /proc says of this process. vm_gone, permission; not_found if it is not a QEMU.
Result<VmInfo> describe_vm(pid_t pid);

/// A path as QEMU sees it, as we can open it: relative to its directory, inside its mount
/// namespace.
std::string path_of_process(pid_t pid, const std::string& path);

}  // namespace vmsight
