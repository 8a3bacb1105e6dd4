// For ChangeKind::undo of what a monitor undoes: by a connection of its own.
#pragma once

#include "host/vm_info.h"
#include "qemu/monitor_questions.h"

namespace vmsight {

template <auto undo>
Result<void> by_own_connection(const ProcessId& vm, const nlohmann::json& payload) {
  VMSIGHT_TRY(const VmInfo info, find_same_vm(vm));
  VMSIGHT_TRY(QmpClient monitor, connect_monitor(info));
  return undo(monitor, vm, payload);
}

}  // namespace vmsight
