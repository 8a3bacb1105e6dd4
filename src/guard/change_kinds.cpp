#include "guard/change_kinds.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "agent/guest_agent.h"
#include "halt/freezer.h"
#include "inject/undo_copy.h"
#include "probe/patch/code_patch.h"
#include "qemu/gdb_stub.h"
#include "qemu/migration.h"
#include "qemu/run_state.h"

namespace vmsight {
namespace {

constexpr std::array<const ChangeKind*, 8> all_kinds{
    &stopped_change, &paused_change, &gdbstub_change, &migration_change,
    &probes_change,  &copy_change,   &freezer_change, &guest_file_change};

Result<const ChangeKind*> find_kind(std::string_view name) {
  const auto kind = std::find_if(all_kinds.begin(), all_kinds.end(),
                                 [&](const ChangeKind* k) { return k->name == name; });
  if (kind != all_kinds.end()) return *kind;
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("undo a change of kind \"{}\": it is unknown", name),
               .hint = "a newer vmsight made it; run that one"};
}

}  // namespace

std::span<const ChangeKind* const> change_kinds() { return all_kinds; }

Result<Change> change_of_kind(std::string_view kind, nlohmann::json payload) {
  VMSIGHT_TRY(const ChangeKind* known, find_kind(kind));
  return make_change(*known, std::move(payload));
}

bool stands_by(const Change& change, std::string_view run_state) {
  const auto kind = find_kind(change.kind);
  return !kind || (*kind)->stands_in.empty() || (*kind)->stands_in == run_state;
}

Result<void> undo_change(const ProcessId& vm, const Change& change) {
  VMSIGHT_TRY(const ChangeKind* kind, find_kind(change.kind));
  return kind->undo(vm, change.payload);
}

Result<void> undo_persistently(const ProcessId& vm, const Change& change) {
  constexpr int attempts = 10;  // QEMU may not have noticed yet that its monitor was let go of
  constexpr int pause_ms = 20;
  Result<void> done;
  for (int i = 0; i < attempts; ++i) {
    done = undo_change(vm, change);
    if (done || has_ended(vm, pause_ms)) return {};
  }
  return done;
}

Result<void> undo_by_monitor(QmpClient& monitor, const ProcessId& vm, const Change& change) {
  VMSIGHT_TRY(const ChangeKind* kind, find_kind(change.kind));
  if (kind->undo_by_monitor) return kind->undo_by_monitor(monitor, vm, change.payload);
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("undo a change of kind \"{}\" by a monitor", change.kind)};
}

}  // namespace vmsight
