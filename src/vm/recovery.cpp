#include "vm/recovery.h"

#include <fmt/format.h>
#include <algorithm>
#include <array>

#include "vm/freezer.h"
#include "vm/monitor.h"
#include "vm/resume_guard.h"
#include "vm/undo_copy.h"

namespace vmsight {
namespace {

using nlohmann::json;

constexpr int guard_time_ms = 3000;  // a guard needs about a second at most

template <auto undo>
Result<void> by_monitor(const VmInfo& info, const json& payload) {
  VMSIGHT_TRY(QmpClient monitor, connect_monitor(info));
  return undo(monitor, payload);
}

Result<void> by_host(const VmInfo&, const json& payload) { return undo_freezer(payload); }

struct Kind {
  std::string_view name;
  std::string_view what;
  Result<void> (*undo)(const VmInfo& info, const json& payload);
  bool outlives_vm = false;  // something is left on the host when the VM has ended
};

constexpr std::array<Kind, 7> kinds{{
    {"stopped", "the guest was stopped by QMP", by_monitor<undo_stop>},
    {"gdbstub", "a gdbstub held the guest, or had breakpoints in it", undo_gdbstub},
    {"migration", "a migration to a file had changed settings", by_monitor<undo_migration>},
    {"probes", "probes were armed in the guest's code", undo_probes},
    {"fork", "a copy of the QEMU process was made", undo_copy},
    {"frozen", "the vCPU threads were in a cgroup that freezes them", by_host, true},
    {"guest-file", "a file was left open in the guest's agent", undo_guest_file},
}};

const Kind* find_kind(std::string_view name) {
  const auto kind =
      std::find_if(kinds.begin(), kinds.end(), [&](const Kind& k) { return k.name == name; });
  return kind == kinds.end() ? nullptr : &*kind;
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

Recovery undo_record(const Record& record, const VmInfo& info) {
  const Kind* kind = find_kind(record.change.kind);
  Recovery recovery{.pid = record.vm.pid,
                    .vm = info.name,
                    .kind = record.change.kind,
                    .what = kind == nullptr ? "a change of unknown kind" : std::string(kind->what)};
  auto done = undo_change(info, record.change);
  if (done) done = JournalEntry::remove_record(record.path);
  recovery.undone = done.has_value();
  if (!done) {
    recovery.reason = done.error().message;
    recovery.hint = done.error().hint;
  }
  return recovery;
}

/// As it is now; only its PID if it cannot be looked at: a process that was killed does not end
/// while a thread of it is frozen.
std::optional<VmInfo> look_at(const Record& record) {
  const Kind* kind = find_kind(record.change.kind);
  const auto info = find_vm(std::to_string(record.vm.pid));
  if (info && info->start_time == record.vm.start_time) return *info;
  if (kind == nullptr || !kind->outlives_vm) return std::nullopt;
  VmInfo known;
  known.pid = record.vm.pid;
  known.start_time = record.vm.start_time;
  return known;
}

/// Of a VM that has ended.
void tidy_up(const Record& record) {
  const Kind* kind = find_kind(record.change.kind);
  if (kind != nullptr && kind->outlives_vm && !kind->undo({}, record.change.payload)) return;
  static_cast<void>(JournalEntry::remove_record(record.path));
}

}  // namespace

Result<void> undo_change(const VmInfo& info, const Change& change) {
  if (const Kind* kind = find_kind(change.kind)) return kind->undo(info, change.payload);
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("undo a change of kind \"{}\": it is unknown", change.kind),
               .hint = "a newer vmsight made it; run that one"};
}

Result<void> undo_stop(QmpClient& monitor, const json&) { return make_it_run(monitor); }

std::vector<Recovery> recover(const std::optional<ProcessId>& vm) {
  std::vector<Recovery> all;
  for (const Record& record : read_journal()) {
    if (vm && (vm->pid != record.vm.pid || vm->start_time != record.vm.start_time)) continue;
    if (has_ended(record.vm)) {
      tidy_up(record);
      continue;
    }
    if (!has_ended(record.author) || !has_ended(record.guard, guard_time_ms)) continue;
    if (!exists(record.path)) continue;  // the guard did it
    if (const auto info = look_at(record)) all.push_back(undo_record(record, *info));
  }
  return all;
}

}  // namespace vmsight
