// Undoing what a vmsight that was killed left in a VM.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vm/journal.h"
#include "vm/qmp.h"
#include "vmsight/vm.h"

namespace vmsight {

// For guards only: undoing may halt the guest or borrow a thread of QEMU.

/// As the change's kind says. unsupported if this version knows no such kind; vm_gone.
Result<void> undo_change(const ProcessId& vm, const Change& change);
/// Tries it several times: what stands in the way of it may be about to end.
Result<void> undo_persistently(const ProcessId& vm, const Change& change);
/// By a connection that is there already. unsupported for changes that are not undone by a monitor.
Result<void> undo_by_monitor(QmpClient& monitor, const ProcessId& vm, const Change& change);

// The kinds. Those that halt make the guest run; all may be done twice.
Result<void> undo_migration(QmpClient& monitor, const ProcessId& vm,
                            const nlohmann::json& payload);  // migration.cpp
Result<void> undo_gdbstub(QmpClient& monitor, const ProcessId& vm,
                          const nlohmann::json& payload);  // gdb_stub.cpp
// "frozen": undo_freezer() of vm/freezer.h; "fork": undo_copy() of vm/undo_copy.h
Result<void> undo_probes(const VmInfo& info, const nlohmann::json& payload);      // code_patch.cpp
Result<void> undo_guest_file(const VmInfo& info, const nlohmann::json& payload);  // guest_agent.cpp

/// `cont`, once migration has let go of the guest; does nothing to one that runs.
Result<void> make_it_run(QmpClient& monitor);

/// Undoes the records whose author and guard are gone, of one VM or of all, and removes them; a
/// guard does the work.
/// Waits a little for a guard that is at work. Records of VMs that have ended are only removed.
std::vector<Recovery> recover(const std::optional<ProcessId>& vm);

}  // namespace vmsight
