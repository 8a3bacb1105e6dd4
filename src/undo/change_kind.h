// A kind of change to a guest, or to its QEMU, that outlives us, and how it is undone.
//
// Whoever makes such changes defines their kind beside the code that makes them; guard/change_kinds.cpp
// lists all kinds, and only guards undo. Nothing else knows what a change is for.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "host/process.h"
#include "vmsight/result.h"

namespace vmsight {

class QmpClient;

struct ChangeKind {
  std::string_view name;  // in the journal: "stopped"
  /// What a vmsight that was killed left, for a person: "the guest was stopped by QMP".
  std::string_view what;
  /// May halt the guest, or borrow a thread of QEMU; afterwards the guest runs, if it was we who halted
  /// it. May be done twice. `payload` is what the change was made with; from a file, so anything.
  Result<void> (*undo)(const ProcessId& vm, const nlohmann::json& payload) = nullptr;
  /// The same by a connection to QEMU's monitor that is there already; nullptr if it needs none.
  Result<void> (*undo_by_monitor)(QmpClient&, const ProcessId& vm,
                                  const nlohmann::json& payload) = nullptr;
  bool outlives_vm = false;  // something is left on the host when the VM has ended
  /// QEMU's run state of a guest that stands because of the change, though it was not told to stop: "debug"
  /// at a breakpoint. "": whatever state it stands in.
  std::string_view stands_in{};
  /// Somebody asked for it, and it is to stay: guards and recovery leave it. Its record says who wanted
  /// it, until the VM has ended or `doctor` sees that it is no more.
  bool on_purpose = false;
};

}  // namespace vmsight
