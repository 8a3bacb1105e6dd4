// All kinds of changes, and undoing one. Undoing may halt the guest or borrow a thread of QEMU: for guards.
#pragma once

#include <span>

#include "undo/journal.h"

namespace vmsight {

std::span<const ChangeKind* const> change_kinds();

/// A change of that kind. unsupported if this version knows no such kind.
Result<Change> change_of_kind(std::string_view kind, nlohmann::json payload);

/// Whether a guest that was not told to stop, and is in this run state, stands because of the change.
bool stands_by(const Change& change, std::string_view run_state);

/// As the change's kind says. unsupported as above; vm_gone.
Result<void> undo_change(const ProcessId& vm, const Change& change);
/// Tries it several times: what stands in the way of it may be about to end.
Result<void> undo_persistently(const ProcessId& vm, const Change& change);
/// By a connection that is there already. unsupported for changes that are not undone by a monitor.
Result<void> undo_by_monitor(QmpClient& monitor, const ProcessId& vm, const Change& change);

}  // namespace vmsight
