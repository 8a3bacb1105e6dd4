// Undoing what a vmsight that was killed left in a VM.
#pragma once

#include <optional>
#include <vector>

#include "undo/journal.h"
#include "vmsight/vm.h"

namespace vmsight {

/// Undoes the records whose author and guard are gone, of one VM or of all, and removes them; a
/// guard does the work, and knows how.
/// Changes that somebody asked for stay. Waits a little for a guard that is at work. Records of VMs that have ended are only removed, unless
/// something is left on the host.
std::vector<Recovery> recover(const std::optional<ProcessId>& vm);

/// Changes to this VM that somebody asked for and that stay (ChangeKind::on_purpose).
std::vector<Record> changes_on_purpose(const ProcessId& vm);

}  // namespace vmsight
