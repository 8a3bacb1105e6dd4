#include "undo/recovery.h"

#include <fmt/format.h>
#include <unistd.h>

#include "host/vm_info.h"
#include "undo/guard.h"

namespace vmsight {
namespace {

constexpr int guard_time_ms = 3000;  // a guard needs about a second at most

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
  const Change& change = record.change;
  const auto info = find_same_vm(record.vm);
  Recovery recovery{.pid = record.vm.pid,
                    .vm = info ? info->name : "",
                    .kind = change.kind,
                    .what = change.what.empty()
                                ? fmt::format("a change of kind \"{}\"", change.kind)
                                : change.what};
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
  if (record.change.outlives_vm) {
    static_cast<void>(
        undo_in_guard(record));  // that removes the record, or it is tried again later
  } else {
    static_cast<void>(JournalEntry::remove_record(record.path));
  }
}

}  // namespace

std::vector<Record> changes_on_purpose(const ProcessId& vm) {
  std::vector<Record> records = read_journal();
  std::erase_if(records,
                [&](const Record& record) { return !record.change.on_purpose || record.vm != vm; });
  return records;
}

std::vector<Recovery> recover(const std::optional<ProcessId>& vm) {
  std::vector<Recovery> all;
  for (const Record& record : read_journal()) {
    if (vm && *vm != record.vm) continue;
    if (has_ended(record.vm)) {
      tidy_up(record);
      continue;
    }
    if (record.change.on_purpose) continue;
    if (!has_ended(record.author) || !has_ended(record.guard, guard_time_ms)) continue;
    if (!exists(record.path)) continue;  // the guard did it
    all.push_back(undo_record(record));
  }
  return all;
}

}  // namespace vmsight
