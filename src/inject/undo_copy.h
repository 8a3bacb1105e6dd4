// Taking away what is left of a copy of the QEMU process (inject/process_copy.h) when the guard that
// made it was killed: the copy, or its remains among QEMU's children, and guest RAM that would go
// into children.
#pragma once

#include <sys/types.h>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <vector>

#include "host/process.h"
#include "undo/change_kind.h"
#include "vmsight/vm.h"

namespace vmsight {

/// A copy of the QEMU process. Payload: what describe_copy() says.
extern const ChangeKind copy_change;
nlohmann::json describe_copy(std::span<const RamBlock> blocks);
/// The same back: sizes and host addresses only.
Result<std::vector<RamBlock>> parse_copied_blocks(const nlohmann::json& payload);

/// Ends and reaps all copies, and keeps the RAM out of children again; may be done twice. As
/// copying itself does, it borrows a thread of QEMU: only a guard may do it. permission if somebody
/// else traces QEMU.
Result<void> undo_copy(const ProcessId& vm, const nlohmann::json& payload);

/// Copies of this process: its children without an exit signal. What QEMU starts itself has one.
std::vector<pid_t> copies_of(pid_t pid);

/// Field 38 of a /proc/PID/stat line.
bool has_no_exit_signal(std::string_view stat);

}  // namespace vmsight
