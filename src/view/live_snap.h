// The techniques that take live snapshots by system calls inside the QEMU process.
#pragma once

#include "vmsight/view.h"

namespace vmsight {

/// "live-snap:uffd" and "live-snap:fork", with the vCPUs halted by ptrace. `vm` must outlive them.
Result<std::unique_ptr<GuestMemory>> open_live_snap_uffd(const Vm& vm,
                                                         std::chrono::milliseconds max_halt);
Result<std::unique_ptr<GuestMemory>> open_live_snap_fork(const Vm& vm,
                                                         std::chrono::milliseconds max_halt);

}  // namespace vmsight
