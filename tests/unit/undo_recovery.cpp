// The journal of changes, and undoing what is left when even the guard was killed.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <fstream>

#include "guard/change_kinds.h"
#include "qemu/monitor_questions.h"
#include "qemu/monitor_session.h"
#include "support/fake_monitor.h"
#include "undo/recovery.h"
#include "vmsight/halt.h"

namespace vmsight::undo_recovery_test {
namespace {

using test::FakeMonitor;
using test::MonitoredVm;

ProcessId id_of(const Vm& vm) { return {vm.info().pid, vm.info().start_time}; }

std::vector<Record> records_of(const Vm& vm) {
  std::vector<Record> all = read_journal();
  std::erase_if(all, [&](const Record& r) { return r.vm.pid != vm.info().pid; });
  return all;
}

void forget_records(const Vm& vm) {
  for (const Record& record : records_of(vm)) {
    EXPECT_TRUE(JournalEntry::remove_record(record.path));
  }
}

TEST(Journal, ARecordReadsAsItWasWritten) {
  const Record record{
      .vm = {10, 11},
      .author = {20, 21},
      .guard = {30, 31},
      .change = {.kind = "later kind", .payload = {{"a", {1, 2}}}, .on_purpose = true}};
  const auto parsed = parse_record(format_record(record));
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->vm.pid, 10);
  EXPECT_EQ(parsed->vm.start_time, 11u);
  EXPECT_EQ(parsed->author.pid, 20);
  EXPECT_EQ(parsed->guard.start_time, 31u);
  EXPECT_EQ(parsed->change.kind, "later kind");
  EXPECT_EQ(parsed->change.payload, record.change.payload);
  EXPECT_TRUE(parsed->change.on_purpose);
  EXPECT_FALSE(parsed->change.outlives_vm);
}

TEST(Journal, RefusesWhatIsNoRecord) {
  const std::string good = format_record(
      {.vm = {1, 1}, .author = {2, 2}, .guard = {3, 3}, .change = {.kind = "stopped"}});
  ASSERT_TRUE(parse_record(good));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(parse_record(std::string_view(good).substr(0, size)));
  }
  EXPECT_FALSE(parse_record("[]"));
  EXPECT_FALSE(parse_record(R"({"version": 2})"));
  EXPECT_FALSE(parse_record(R"({"version":1,"vm":{"pid":-1,"start_time":0}})"));
}

TEST(Journal, FilesAreOursAlone) {
  FakeMonitor monitor;
  const MonitoredVm vm(monitor);
  auto entry = JournalEntry::prepare(id_of(vm), {.kind = "stopped"}, {1, 1});
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_TRUE(records_of(vm).empty());
  ASSERT_TRUE(entry->write());
  const auto records = records_of(vm);
  ASSERT_EQ(records.size(), 1u);
  struct stat info {};
  ASSERT_EQ(::stat(records[0].path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(::stat(journal_directory().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  ASSERT_TRUE(entry->remove());
  EXPECT_TRUE(entry->remove()) << "twice is no error";
  EXPECT_TRUE(records_of(vm).empty());
}

TEST(Journal, HasAStopOnlyWhileItLasts) {
  FakeMonitor monitor;
  const MonitoredVm vm(monitor);
  auto halter = open_stop_halter(vm);
  ASSERT_TRUE(halter);
  EXPECT_TRUE(records_of(vm).empty());
  auto paused = (*halter)->halt();
  ASSERT_TRUE(paused);
  const auto records = records_of(vm);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].change.kind, "stopped");
  EXPECT_EQ(records[0].author.pid, ::getpid());
  EXPECT_TRUE(recover(id_of(vm)).empty()) << "its author lives";
  EXPECT_EQ(monitor.status(), "paused");
  ASSERT_TRUE(paused->resume());
  EXPECT_TRUE(records_of(vm).empty());
}

/// A child that stopped the guest is killed, and its guard before it.
void die_with_guard(const Vm& vm) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto halter = open_stop_halter(vm);
    if (!halter) ::_exit(1);
    const auto paused = (*halter)->halt();
    const auto records = records_of(vm);
    if (!paused || records.size() != 1) ::_exit(2);
    ::kill(records[0].guard.pid, SIGKILL);
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "exit status " << WEXITSTATUS(status);
}

TEST(Journal, APauseOnPurposeOutlivesWhoMadeIt) {
  FakeMonitor monitor;
  const MonitoredVm vm(monitor);
  const nlohmann::json why = {{"by", "rule \"x\""}, {"time", "now"}};
  const pid_t child = ::fork();
  if (child == 0) {
    auto session = MonitorSession::of(vm.info());
    const auto paused = session ? (*session)->ask(GuardRequest::pause, why) : session.error();
    if (!paused || *paused != 1) ::_exit(1);
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "exit status " << WEXITSTATUS(status);
  const auto records = changes_on_purpose(id_of(vm));
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].change.payload, why);
  ASSERT_TRUE(has_ended(records[0].guard, 5000));
  EXPECT_TRUE(recover(id_of(vm)).empty());
  EXPECT_EQ(monitor.status(), "paused");
  EXPECT_EQ(changes_on_purpose(id_of(vm)).size(), 1u);
  forget_records(vm);
}

TEST(Journal, APauseOnPurposeOfAGuestThatStandsChangesNothing) {
  FakeMonitor monitor;
  monitor.set_status("paused");
  const MonitoredVm vm(monitor);
  auto session = MonitorSession::of(vm.info());
  ASSERT_TRUE(session);
  const auto paused = (*session)->ask(GuardRequest::pause, nlohmann::json::object());
  ASSERT_TRUE(paused) << paused.error().message;
  EXPECT_EQ(*paused, 0u);
  EXPECT_TRUE(records_of(vm).empty());
}

TEST(Journal, APauseOnPurposeThatIsRefusedLeavesNoRecord) {
  FakeMonitor monitor;
  monitor.refuse("stop");
  const MonitoredVm vm(monitor);
  auto session = MonitorSession::of(vm.info());
  ASSERT_TRUE(session);
  EXPECT_FALSE((*session)->ask(GuardRequest::pause, nlohmann::json::object()));
  EXPECT_TRUE(records_of(vm).empty());
}

/// This process is no QEMU, so that a guard would not find the VM: by a connection of the test's.
Result<void> undo(const Vm& vm, const Change& change) {
  VMSIGHT_TRY(QmpClient client, connect_monitor(vm.info()));
  return undo_by_monitor(client, id_of(vm), change);
}

TEST(Recovery, UndoKnowsItsKinds) {
  FakeMonitor monitor;
  const MonitoredVm vm(monitor);
  for (const char* kind : {"stopped", "gdbstub", "migration"}) {
    monitor.set_status("paused");
    const auto done = undo(vm, {.kind = kind});
    EXPECT_TRUE(done) << kind << ": " << done.error().message;
    EXPECT_EQ(monitor.status(), "running") << kind;
  }
  EXPECT_FALSE(undo(vm, {.kind = "of the future"}));
}

TEST(Recovery, TellsWhoseFaultItIsThatAGuestStands) {
  const Change breakpoints = *change_of_kind("gdbstub", {});
  EXPECT_TRUE(stands_by(breakpoints, "debug"));
  EXPECT_FALSE(stands_by(breakpoints, "paused"));
  EXPECT_TRUE(stands_by(*change_of_kind("stopped", {}), "paused"));
  EXPECT_TRUE(stands_by({.kind = "from the future"}, "paused"));  // it is let go of, rather
}

TEST(Recovery, CancelsMigrationsButNoBackgroundSnapshot) {
  FakeMonitor monitor;
  const MonitoredVm vm(monitor);
  const auto cancelled = [&] {
    const auto asked = monitor.asked();
    return std::count(asked.begin(), asked.end(), "migrate_cancel");
  };
  ASSERT_TRUE(undo(vm, {.kind = "migration", .payload = {{"background", true}}}));
  EXPECT_EQ(cancelled(), 0);
  ASSERT_TRUE(undo(vm, {.kind = "migration", .payload = {{"background", false}}}));
  EXPECT_EQ(cancelled(), 1);
}

TEST(Recovery, ARecordOutlivesUsAndOurGuard) {
  FakeMonitor monitor;
  const MonitoredVm vm(monitor);
  die_with_guard(vm);
  EXPECT_EQ(monitor.status(), "paused");
  ASSERT_EQ(records_of(vm).size(), 1u);
  EXPECT_TRUE(undo(vm, records_of(vm)[0].change));
  EXPECT_EQ(monitor.status(), "running");
  forget_records(vm);
}

TEST(Recovery, ForgetsVmsThatHaveEnded) {
  const ProcessId ended{::getpid(), 1};  // our PID, but of an earlier process
  auto entry = JournalEntry::prepare(ended, {.kind = "stopped"}, {::getpid(), 1});
  ASSERT_TRUE(entry);
  ASSERT_TRUE(entry->write());
  EXPECT_TRUE(recover(ended).empty());
  const auto left = read_journal();
  EXPECT_TRUE(std::none_of(left.begin(), left.end(), [&](const Record& r) {
    return r.vm.pid == ended.pid && r.vm.start_time == 1;
  }));
}

}  // namespace
}  // namespace vmsight::undo_recovery_test
