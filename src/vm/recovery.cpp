#include "vm/recovery.h"

#include <fmt/format.h>
#include <poll.h>
#include <algorithm>
#include <array>

#include "vm/freezer.h"
#include "vm/guard.h"
#include "vm/monitor.h"
#include "vm/undo_copy.h"

namespace vmsight {
namespace {

using nlohmann::json;

constexpr int guard_time_ms = 3000;  // a guard needs about a second at most

/// Undoing a change takes one of these.
using ByMonitor = Result<void> (*)(QmpClient&, const ProcessId&, const json&);
using ByHost = Result<void> (*)(const ProcessId&, const json&);

struct Kind {
  std::string_view name;
  std::string_view what;
  ByMonitor by_monitor = nullptr;
  ByHost by_host = nullptr;
  bool outlives_vm = false;  // something is left on the host when the VM has ended
};

Result<void> undo_stop(QmpClient& monitor, const ProcessId&, const json&) {
  return make_it_run(monitor);
}

Result<VmInfo> find_same_vm(const ProcessId& vm) {
  VMSIGHT_TRY(VmInfo info, find_vm(std::to_string(vm.pid)));
  if (info.start_time == vm.start_time) return info;
  return Error{.code = ErrorCode::vm_gone, .message = fmt::format("process {} has ended", vm.pid)};
}

template <auto undo>
Result<void> of_vm(const ProcessId& vm, const json& payload) {
  VMSIGHT_TRY(const VmInfo info, find_same_vm(vm));
  return undo(info, payload);
}

Result<void> thaw(const ProcessId&, const json& payload) { return undo_freezer(payload); }

constexpr std::array<Kind, 7> kinds{{
    {.name = "stopped", .what = "the guest was stopped by QMP", .by_monitor = undo_stop},
    {.name = "gdbstub",
     .what = "a gdbstub held the guest, or had breakpoints in it",
     .by_monitor = undo_gdbstub},
    {.name = "migration",
     .what = "a migration to a file had changed settings",
     .by_monitor = undo_migration},
    {.name = "probes",
     .what = "probes were armed in the guest's code",
     .by_host = of_vm<undo_probes>},
    {.name = "fork", .what = "a copy of the QEMU process was made", .by_host = undo_copy},
    {.name = "frozen",
     .what = "the vCPU threads were in a cgroup that freezes them",
     .by_host = thaw,
     .outlives_vm = true},
    {.name = "guest-file",
     .what = "a file was left open in the guest's agent",
     .by_host = of_vm<undo_guest_file>},
}};

const Kind* find_kind(std::string_view name) {
  const auto kind =
      std::find_if(kinds.begin(), kinds.end(), [&](const Kind& k) { return k.name == name; });
  return kind == kinds.end() ? nullptr : &*kind;
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

/// In a guard: we may be killed or stopped at any moment.
Result<void> undo_in_guard(const Record& record) {
  VMSIGHT_TRY(const auto guard,
              Guard::start(record.vm, {.service = "undo",
                                       .config = {{"kind", record.change.kind},
                                                  {"payload", record.change.payload}},
                                       .descriptors = {}}));
  auto done = guard->ask(GuardRequest::undo);
  if (!done) return std::move(done).error();
  return JournalEntry::remove_record(record.path);
}

Recovery undo_record(const Record& record) {
  const Kind* kind = find_kind(record.change.kind);
  const auto info = find_same_vm(record.vm);
  Recovery recovery{.pid = record.vm.pid,
                    .vm = info ? info->name : "",
                    .kind = record.change.kind,
                    .what = kind == nullptr ? "a change of unknown kind" : std::string(kind->what)};
  const auto done = undo_in_guard(record);
  recovery.undone = done.has_value();
  if (!done) {
    recovery.reason = done.error().message;
    recovery.hint = done.error().hint;
  }
  return recovery;
}

/// The VM has ended, and what it had with it.
void tidy_up(const Record& record) {
  const Kind* kind = find_kind(record.change.kind);
  if (kind != nullptr && kind->outlives_vm && !kind->by_host(record.vm, record.change.payload)) {
    return;
  }
  static_cast<void>(JournalEntry::remove_record(record.path));
}

}  // namespace

Result<void> undo_by_monitor(QmpClient& monitor, const ProcessId& vm, const Change& change) {
  const Kind* kind = find_kind(change.kind);
  if (kind != nullptr && kind->by_monitor) return kind->by_monitor(monitor, vm, change.payload);
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("undo a change of kind \"{}\" by a monitor", change.kind)};
}

Result<void> undo_change(const ProcessId& vm, const Change& change) {
  const Kind* kind = find_kind(change.kind);
  if (kind == nullptr) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("undo a change of kind \"{}\": it is unknown", change.kind),
                 .hint = "a newer vmsight made it; run that one"};
  }
  if (kind->by_host) return kind->by_host(vm, change.payload);
  VMSIGHT_TRY(const VmInfo info, find_same_vm(vm));
  VMSIGHT_TRY(QmpClient monitor, connect_monitor(info));
  return kind->by_monitor(monitor, vm, change.payload);
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

Result<void> make_it_run(QmpClient& monitor) {
  constexpr int patience = 1000;
  constexpr int pause_ms = 2;
  for (int i = 0; i < patience; ++i) {
    VMSIGHT_TRY(const std::string status, ask_run_state(monitor));
    if (status == "running") return {};
    if (status != "finish-migrate" && status != "save-vm") break;
    ::poll(nullptr, 0, pause_ms);
  }
  VMSIGHT_TRY(const json done, monitor.execute({"cont"}));
  static_cast<void>(done);
  return {};
}

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
    all.push_back(undo_record(record));
  }
  return all;
}

}  // namespace vmsight
