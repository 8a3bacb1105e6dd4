#include "state/changes.h"

#include <gtest/gtest.h>

namespace vmsight::state_changes_test {
namespace {

Process process(std::int32_t pid, std::uint64_t start, std::string_view comm) {
  Process record;
  record.pid = record.tgid = pid;
  record.start_time_ns = start;
  record.comm = comm;
  return record;
}

Socket socket(std::uint64_t inode, std::string_view state, std::int32_t pid) {
  Socket record;
  record.inode = inode;
  record.netns = 1;
  record.family = "inet";
  record.protocol = "tcp";
  record.state = state;
  record.pid = pid;
  return record;
}

TEST(Changes, APidThatIsUsedAgainIsAnotherProcess) {
  State before, after;
  before.processes = {process(1, 5, "init"), process(7, 100, "sh")};
  after.processes = {process(7, 200, "sh"), process(1, 5, "init")};
  const Changes changes = compare_states(before, after, part_all);
  ASSERT_EQ(changes.of<Process>().size(), 2u);
  EXPECT_EQ(changes.of<Process>()[0].before, &before.processes[1]);
  EXPECT_EQ(changes.of<Process>()[0].after, nullptr);
  EXPECT_EQ(changes.of<Process>()[1].before, nullptr);
  EXPECT_EQ(changes.of<Process>()[1].after, &after.processes[0]);
}

TEST(Changes, AnExecIsAChangeAndTimeIsNot) {
  State before, after;
  before.processes = {process(7, 100, "sh"), process(8, 100, "top")};
  after.processes = {process(7, 100, "sleep"), process(8, 100, "top")};
  after.processes[1].utime_ns = 99;
  after.processes[1].state = 'R';
  const Changes changes = compare_states(before, after, part_all);
  ASSERT_EQ(changes.of<Process>().size(), 1u);
  EXPECT_EQ(changes.of<Process>()[0].before, &before.processes[0]);
  EXPECT_EQ(changes.of<Process>()[0].after, &after.processes[0]);
}

TEST(Changes, AKworkerThatTurnsToOtherWorkIsTheSame) {
  State before, after;
  before.processes = {process(7, 100, "kworker/0:1-events")};
  after.processes = {process(7, 100, "kworker/0:1-mm_percpu_wq")};
  before.processes[0].kernel_thread = after.processes[0].kernel_thread = true;
  EXPECT_TRUE(compare_states(before, after, part_all).empty());
}

TEST(Changes, OnlyThePartsAskedFor) {
  State before, after;
  after.processes = {process(7, 100, "sh")};
  after.sockets = {socket(9, "LISTEN", 7)};
  const Changes changes = compare_states(before, after, part_sockets);
  EXPECT_TRUE(changes.of<Process>().empty());
  EXPECT_EQ(changes.of<Socket>().size(), 1u);
}

TEST(Changes, ASocketOfSeveralProcessesOpensOnce) {
  State before, after;
  after.sockets = {socket(9, "LISTEN", 7), socket(9, "LISTEN", 8)};
  EXPECT_EQ(compare_states(before, after, part_all).of<Socket>().size(), 1u);
  // A child that inherits it opens nothing.
  before.sockets = {socket(9, "LISTEN", 7)};
  EXPECT_TRUE(compare_states(before, after, part_all).empty());
}

TEST(Changes, SocketsWithoutInodeAreToldByTheirAddresses) {
  State before, after;
  Socket waiting = socket(0, "TIME_WAIT", 0);
  waiting.local = "10.0.2.15";
  waiting.local_port = 80;
  waiting.remote_port = 1000;
  before.sockets = {waiting};
  after.sockets = {waiting};
  EXPECT_TRUE(compare_states(before, after, part_all).empty());
  after.sockets[0].remote_port = 1001;
  EXPECT_EQ(compare_states(before, after, part_all).of<Socket>().size(), 2u);
}

TEST(Changes, TheLogOnlyGrows) {
  State before, after;
  before.kernel_log = {{.sequence = 1, .text = "a"}, {.sequence = 2, .text = "b"}};
  after.kernel_log = {{.sequence = 2, .text = "b"}, {.sequence = 3, .text = "c"}};
  const Changes changes = compare_states(before, after, part_all);
  ASSERT_EQ(changes.of<LogRecord>().size(), 1u);
  EXPECT_EQ(changes.of<LogRecord>()[0].after->text, "c");
}

TEST(Changes, TornViewsAreNotComparedButLastingProblemsDoNotMatter) {
  State before, after;
  after.problem("processes", "the list of tasks does not hold together");
  EXPECT_FALSE(is_comparable(before, after, part_processes));
  EXPECT_TRUE(is_comparable(before, after, part_modules));
  before.problem("processes", "something that is always so");
  EXPECT_TRUE(is_comparable(before, after, part_processes));
  // A process that tore may have been in any list.
  after.problem("process 12", "changed while it was read");
  EXPECT_FALSE(is_comparable(before, after, part_modules));
}

}  // namespace
}  // namespace vmsight::state_changes_test
