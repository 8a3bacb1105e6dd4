// Whether the guest runs, as QEMU has it, and making it run again.
#pragma once

#include <string>

#include "qemu/qmp.h"
#include "undo/change_kind.h"

namespace vmsight {

/// "running", "paused", "postmigrate", "inmigrate", "shutdown", ... (QMP RunState)
Result<std::string> ask_run_state(QmpClient& monitor);
/// ... of an answer to query-status.
Result<std::string> parse_run_state(const nlohmann::json& answer);

/// `cont`, once migration has let go of the guest; does nothing to one that runs.
Result<void> make_it_run(QmpClient& monitor);

/// QMP's `stop`. No payload.
extern const ChangeKind stopped_change;

/// QMP's `stop`, which somebody asked for: it stays. Payload: {"by": what wanted it, "time": when}.
extern const ChangeKind paused_change;

}  // namespace vmsight
