// The techniques that use interfaces of QEMU itself, or a line of its into the guest; for the table in technique.cpp. `vm` must
// outlive what they open. Opening tries what it can without disturbing the guest.
#pragma once

#include <chrono>
#include <memory>

#include "vmsight/memory.h"
#include "vmsight/vm.h"

namespace vmsight {

// The human monitor's xp and QMP's pmemsave.
Result<std::unique_ptr<GuestMemory>> open_monitor_xp(const Vm& vm);
Result<std::unique_ptr<GuestMemory>> open_monitor_pmemsave(const Vm& vm);

// The gdbstub, which halts the guest for each view.
Result<std::unique_ptr<GuestMemory>> open_gdbstub(const Vm& vm, std::chrono::milliseconds max_halt);

// Agents in the guest: agent_reads.cpp.
Result<std::unique_ptr<GuestMemory>> open_vmsight_agent(const Vm& vm);
Result<std::unique_ptr<GuestMemory>> open_guest_agent(const Vm& vm);

// Snapshots that QEMU writes: qemu_snapshots.cpp.
Result<std::unique_ptr<GuestMemory>> open_halt_snap_dump(const Vm& vm);
Result<std::unique_ptr<GuestMemory>> open_halt_snap_pmemsave(const Vm& vm,
                                                             std::chrono::milliseconds max_halt);
Result<std::unique_ptr<GuestMemory>> open_halt_snap_migrate(const Vm& vm,
                                                            std::chrono::milliseconds max_halt);
Result<std::unique_ptr<GuestMemory>> open_live_snap_mapped_ram(const Vm& vm,
                                                               std::chrono::milliseconds max_halt);
Result<std::unique_ptr<GuestMemory>> open_live_snap_background(const Vm& vm,
                                                               std::chrono::milliseconds max_halt);

}  // namespace vmsight
