// The freezer halter, by both versions of cgroups, against child processes that count.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>

#include "halt/freezer_halter.h"
#include "host/process.h"
#include "support/counting_vm.h"
#include "undo/recovery.h"

namespace vmsight::halt_freezer_test {
namespace {

using test::comes_true;
using test::CountingVm;
using test::ThreadNames;

void write_file(const std::string& path, const std::string& text) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  EXPECT_TRUE(file) << path;
  EXPECT_EQ(::write(file.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()))
      << text << " to " << path << ": " << errno;
}

bool all_count(const CountingVm& vm) {
  for (unsigned i = 0; i < vm.vcpus(); ++i) {
    if (!vm.counts(i)) return false;
  }
  return true;
}

ProcessId id_of(const Vm& vm) { return {vm.info().pid, vm.info().start_time}; }

std::vector<Record> records_of(const Vm& vm) {
  std::vector<Record> all = read_journal();
  std::erase_if(all, [&](const Record& r) { return r.vm.pid != vm.info().pid; });
  return all;
}

std::string version_name(const ::testing::TestParamInfo<Freezing>& how) {
  return how.param.version == 1 ? "v1" : "v2";
}

class FreezerHalter : public ::testing::TestWithParam<Freezing> {
 protected:
  void SetUp() override {
    const pid_t us = ::getpid();
    const auto groups = groups_of(us, {&us, 1}, GetParam());
    if (!groups) GTEST_SKIP() << groups.error().message;
    home_ = groups->front();
    if (const auto usable = check_freezable(home_, GetParam()); !usable) {
      GTEST_SKIP() << usable.error().message;
    }
  }
  void TearDown() override {
    for (const std::string& group : made_) EXPECT_EQ(::rmdir(group.c_str()), 0) << group;
  }
  std::unique_ptr<Halter> open(const Vm& vm) {
    auto halter = open_freezer_halter(vm, GetParam());
    EXPECT_TRUE(halter) << halter.error().message;
    return halter ? *std::move(halter) : nullptr;
  }
  std::string group_of(const Vm& vm, pid_t tid) {
    const auto groups = groups_of(vm.info().pid, {&tid, 1}, GetParam());
    return groups && !groups->empty() ? groups->front() : "";
  }
  bool in_ours(const Vm& vm, pid_t tid) {
    return group_of(vm, tid).find("/vmsight-") != std::string::npos;
  }
  /// Groups of ours that are left for this VM, in the group that it was in.
  std::vector<std::string> left_for(const Vm& vm, std::string parent = "") {
    if (parent.empty()) parent = home_;
    std::vector<std::string> found;
    const Directory directory = list_directory(parent);
    const std::string prefix = fmt::format("vmsight-{}-", vm.info().pid);
    while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr) {
      if (std::string_view(entry->d_name).starts_with(prefix)) found.emplace_back(entry->d_name);
    }
    return found;
  }
  /// A group of the test's own, beside the one it is in itself; removed when the test ends.
  std::string make_group(const std::string& parent, const std::string& name) {
    std::string group = fmt::format("{}/{}-{}", parent, name, ::getpid());
    EXPECT_EQ(::mkdir(group.c_str(), 0755), 0) << group << ": " << errno;
    made_.insert(made_.begin(), group);
    return group;
  }
  std::string make_group(const std::string& name) { return make_group(home_, name); }
  void put(pid_t process, const std::string& group) {
    write_file(group + "/cgroup.procs", std::to_string(process));
  }

  std::string home_;
  std::vector<std::string> made_;
};

TEST_P(FreezerHalter, OpeningChangesNothing) {
  const CountingVm vm(2);
  const auto halter = open(vm);
  ASSERT_TRUE(halter);
  EXPECT_EQ(halter->name(), "freezer");
  EXPECT_FALSE(in_ours(vm, vm.thread(0)));
  EXPECT_TRUE(left_for(vm).empty());
  EXPECT_TRUE(records_of(vm).empty());
}

TEST_P(FreezerHalter, StopsEveryVcpuAndResumesIt) {
  const CountingVm vm(3);
  auto halter = open(vm);
  ASSERT_TRUE(halter);
  for (int i = 0; i < 5; ++i) {
    auto paused = halter->halt();
    ASSERT_TRUE(paused) << paused.error().message;
    EXPECT_TRUE(vm.stands());
    ASSERT_TRUE(paused->resume());
    EXPECT_TRUE(all_count(vm));
  }
  EXPECT_EQ(records_of(vm).size(), 1U) << "its threads are in our group";
  halter.reset();
  EXPECT_FALSE(in_ours(vm, vm.thread(0)));
  EXPECT_TRUE(left_for(vm).empty());
  EXPECT_TRUE(records_of(vm).empty());
  EXPECT_TRUE(all_count(vm));
}

TEST_P(FreezerHalter, LeavesOtherThreadsAlone) {
  const CountingVm vm(2);
  const auto halter = open(vm);
  const auto paused = halter->halt();
  ASSERT_TRUE(paused);
  EXPECT_FALSE(in_ours(vm, vm.info().pid));
  EXPECT_TRUE(in_ours(vm, vm.thread(1)));
}

TEST_P(FreezerHalter, StopsAllThreadsIfNoneIsNamed) {
  const CountingVm vm(2, ThreadNames::none);
  const auto halter = open(vm);
  auto paused = halter->halt();
  ASSERT_TRUE(paused) << paused.error().message;
  EXPECT_TRUE(vm.stands());
  EXPECT_TRUE(in_ours(vm, vm.info().pid));
  ASSERT_TRUE(paused->resume());
  EXPECT_TRUE(all_count(vm));
}

TEST_P(FreezerHalter, DestructorsResume) {
  const CountingVm vm(2);
  auto halter = open(vm);
  {
    const auto paused = halter->halt();
    ASSERT_TRUE(paused);
  }
  EXPECT_TRUE(all_count(vm));
}

TEST_P(FreezerHalter, StopsAVcpuThatWasPluggedIn) {
  CountingVm vm(1);
  const auto halter = open(vm);
  for (unsigned count = 2; count <= 3; ++count) {
    vm.plug();
    auto paused = halter->halt();
    ASSERT_TRUE(paused) << paused.error().message;
    ASSERT_EQ(vm.vcpus(), count);
    EXPECT_TRUE(vm.stands());
    ASSERT_TRUE(paused->resume());
    EXPECT_TRUE(all_count(vm));
  }
}

/// As libvirt does: a group for each vCPU, into which it moves new ones.
TEST_P(FreezerHalter, FollowsVcpusIntoGroupsOfTheirOwn) {
  CountingVm vm(2);
  auto halter = open(vm);
  ASSERT_TRUE(halter->halt());
  halter.reset();
  const bool v2 = GetParam().version == 2;
  const std::string domain = v2 ? make_group("domain") : home_;
  if (v2) put(vm.info().pid, domain);
  const std::string first = make_group(domain, "vcpu0"), second = make_group(domain, "vcpu1");
  if (v2) {
    write_file(first + "/cgroup.type", "threaded");
    write_file(second + "/cgroup.type", "threaded");
  }
  const auto move = [&](unsigned vcpu, const std::string& group) {
    write_file(fmt::format("{}/{}", group, GetParam().members), std::to_string(vm.thread(vcpu)));
  };
  move(0, first);
  halter = open(vm);
  for (int i = 0; i < 2; ++i) {
    auto paused = halter->halt();
    ASSERT_TRUE(paused) << paused.error().message;
    EXPECT_TRUE(vm.stands());
    EXPECT_TRUE(in_ours(vm, vm.thread(0)) && in_ours(vm, vm.thread(1)));
    ASSERT_TRUE(paused->resume());
    if (i == 0) move(1, second);
  }
  halter.reset();
  EXPECT_EQ(group_of(vm, vm.thread(0)), first);
  EXPECT_EQ(group_of(vm, vm.thread(1)), second);
  EXPECT_TRUE(all_count(vm));
  vm.end();
}

TEST_P(FreezerHalter, RefusesAGroupThatSomebodyElseHasFrozen) {
  CountingVm vm(2);
  const std::string group = make_group("frozen");
  put(vm.info().pid, group);
  const auto before = open(vm);
  write_file(fmt::format("{}/{}", group, GetParam().control), std::string(GetParam().freeze));
  ASSERT_TRUE(comes_true([&] {
    return read_group_file(fmt::format("{}/{}", group, GetParam().state)).find(GetParam().frozen) !=
           std::string::npos;
  }));
  const auto refused = open_freezer_halter(vm, GetParam());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
  EXPECT_NE(refused.error().message.find("frozen"), std::string::npos) << refused.error().message;
  EXPECT_FALSE(before->halt()) << "frozen after it was opened";
  EXPECT_TRUE(vm.stands()) << "it stays as it was";
  write_file(fmt::format("{}/{}", group, GetParam().control), std::string(GetParam().thaw));
  EXPECT_TRUE(left_for(vm, group).empty());
  EXPECT_TRUE(all_count(vm));
  EXPECT_TRUE(records_of(vm).empty());
  vm.end();
}

TEST_P(FreezerHalter, RefusesWhatAnotherVmsightFreezes) {
  const CountingVm vm(2);
  const auto first = open(vm), second = open(vm);
  auto paused = first->halt();
  ASSERT_TRUE(paused);
  for (int i = 0; i < 2; ++i) {
    const auto refused = second->halt();
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("another vmsight"), std::string::npos)
        << refused.error().message;
    EXPECT_TRUE(vm.stands());
  }
  ASSERT_TRUE(paused->resume());
  ASSERT_TRUE(first->halt()) << "it is as it was";
}

TEST_P(FreezerHalter, AVmThatEndedIsGone) {
  CountingVm vm(2);
  auto halter = open(vm);
  {
    auto paused = halter->halt();
    ASSERT_TRUE(paused);
    ASSERT_EQ(::kill(vm.info().pid, SIGKILL), 0);  // it dies while it stands
    const auto resumed = paused->resume();
    EXPECT_TRUE(resumed || resumed.error().code == ErrorCode::vm_gone) << resumed.error().message;
  }
  vm.end();  // would hang if a thread of it were still frozen
  const auto again = halter->halt();
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::vm_gone);
  halter.reset();
  EXPECT_TRUE(left_for(vm).empty());
  EXPECT_TRUE(records_of(vm).empty());
}

/// A process that halts the guest and is killed; with its guard, if wanted.
void die_while_it_stands(const CountingVm& vm, const Freezing& how, bool with_guard) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto halter = open_freezer_halter(vm, how);
    if (!halter) ::_exit(1);
    const auto paused = (*halter)->halt();
    const auto records = records_of(vm);
    if (!paused || records.size() != 1 || !vm.stands()) ::_exit(2);
    if (with_guard) ::kill(records[0].guard.pid, SIGKILL);
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "exit status " << WEXITSTATUS(status);
}

TEST_P(FreezerHalter, TheGuestRunsOnIfWeAreKilled) {
  const CountingVm vm(2);
  ASSERT_NO_FATAL_FAILURE(die_while_it_stands(vm, GetParam(), false));
  EXPECT_TRUE(all_count(vm));  // within a second
  EXPECT_TRUE(comes_true([&] { return left_for(vm).empty() && records_of(vm).empty(); }));
  EXPECT_FALSE(in_ours(vm, vm.thread(0)));
}

TEST_P(FreezerHalter, RecoveryUndoesWhatIsLeftWhenTheGuardIsKilledToo) {
  const CountingVm vm(2);
  ASSERT_NO_FATAL_FAILURE(die_while_it_stands(vm, GetParam(), true));
  EXPECT_TRUE(vm.stands());
  const auto all = recover(id_of(vm));
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].kind, "frozen");
  EXPECT_TRUE(all[0].undone) << all[0].reason;
  EXPECT_TRUE(all_count(vm));
  EXPECT_TRUE(left_for(vm).empty());
  EXPECT_FALSE(in_ours(vm, vm.thread(1)));
  EXPECT_TRUE(recover(id_of(vm)).empty());
}

TEST_P(FreezerHalter, RecoveryTidiesUpAfterAVmThatHasEnded) {
  CountingVm vm(2);
  ASSERT_NO_FATAL_FAILURE(die_while_it_stands(vm, GetParam(), true));
  ::kill(vm.info().pid, SIGKILL);
  if (GetParam().version == 1) recover(id_of(vm));  // what v1 has frozen does not end
  vm.end();
  recover(id_of(vm));
  EXPECT_TRUE(left_for(vm).empty());
  EXPECT_TRUE(records_of(vm).empty());
}

/// A process that hangs in the host's kernel: it writes from a page that a userfaultfd withholds.
pid_t start_stuck_process() {
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int uffd = static_cast<int>(::syscall(SYS_userfaultfd, 0));
  uffdio_api api{.api = UFFD_API};
  void* page =
      ::mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uffdio_register range{.range = {reinterpret_cast<std::uint64_t>(page), page_size},
                        .mode = UFFDIO_REGISTER_MODE_MISSING};
  int ends[2];
  if (::ioctl(uffd, UFFDIO_API, &api) != 0 || ::ioctl(uffd, UFFDIO_REGISTER, &range) != 0 ||
      ::pipe(ends) != 0) {
    ::_exit(1);
  }
  static_cast<void>(!::write(ends[1], page, 1));
  ::_exit(0);
}

TEST(Freezer, GivesUpOnAThreadThatIsStuckAndUndoesAll) {
  const pid_t child = start_stuck_process();
  const ScopeExit end([child] {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  });
  ::usleep(50'000);
  const ProcessId vm = *identify(child);
  auto freezer = Freezer::prepare(vm, {&child, 1}, {&freezing_v2, 1}, *identify(::getpid()));
  if (!freezer) GTEST_SKIP() << freezer.error().message;
  ASSERT_TRUE((*freezer)->enter());
  ASSERT_TRUE((*freezer)->take_in({&child, 1}));
  const auto frozen = (*freezer)->freeze(Freezer::Clock::now() + std::chrono::milliseconds(200));
  ASSERT_FALSE(frozen);
  EXPECT_EQ(frozen.error().code, ErrorCode::timeout);
  EXPECT_TRUE((*freezer)->leave());
  const auto groups = groups_of(child, {&child, 1}, freezing_v2);
  ASSERT_TRUE(groups);
  EXPECT_EQ(groups->front().find("vmsight-"), std::string::npos);
}

/// Processes in a sibling make the domain one that can have no threads of its own below it.
TEST(Freezer, SaysWhatTheKernelRefusesAndLeavesNothing) {
  const pid_t us = ::getpid();
  const auto home = groups_of(us, {&us, 1}, freezing_v2);
  if (!home || !check_freezable(home->front(), freezing_v2)) GTEST_SKIP() << "no cgroup v2 here";
  CountingVm vm(1);
  CountingVm other(1);
  const std::string group = fmt::format("{}/refuses-{}", home->front(), us);
  const std::string child = group + "/other";
  ASSERT_EQ(::mkdir(group.c_str(), 0755), 0);
  ASSERT_EQ(::mkdir(child.c_str(), 0755), 0);
  write_file(child + "/cgroup.procs", std::to_string(other.info().pid));
  write_file(group + "/cgroup.procs", std::to_string(vm.info().pid));
  {
    auto halter = open_freezer_halter(vm, freezing_v2);
    ASSERT_TRUE(halter);
    const auto refused = (*halter)->halt();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
    EXPECT_NE(refused.error().message.find("threaded"), std::string::npos);
  }
  EXPECT_TRUE(all_count(vm));
  EXPECT_TRUE(records_of(vm).empty());
  vm.end();
  other.end();
  EXPECT_EQ(::rmdir(child.c_str()), 0);
  EXPECT_EQ(::rmdir(group.c_str()), 0) << "nothing of ours is in it";
}

TEST(Freezer, UndoRefusesWhatIsNoRecord) {
  using nlohmann::json;
  for (const char* text : {"[]", "{}", R"({"name":"vmsight-1"})", R"({"name":1,"parents":[]})",
                           R"({"name":"other","parents":["/tmp"]})",
                           R"({"name":"vmsight-/../x","parents":["/tmp"]})"}) {
    EXPECT_FALSE(undo_freezer(json::parse(text))) << text;
  }
  EXPECT_TRUE(undo_freezer(json::parse(R"({"name":"vmsight-1","parents":["/none"],"version":2})")));
}

INSTANTIATE_TEST_SUITE_P(Versions, FreezerHalter, ::testing::Values(freezing_v1, freezing_v2),
                         version_name);

TEST(Cgroup, Mounts) {
  constexpr std::string_view text =
      "24 1 0:22 / / rw - ext4 /dev/sda rw\n"
      "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
      "37 31 0:34 / /sys/fs/cgroup/fr\\040eezer rw,relatime shared:9 - cgroup cgroup rw,freezer\n"
      "41 31 0:38 /docker/x /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
  const auto one = find_cgroup_mount(text, 1);
  ASSERT_TRUE(one);
  EXPECT_EQ(one->path, "/sys/fs/cgroup/fr eezer");
  EXPECT_EQ(one->root, "/");
  const auto two = find_cgroup_mount(text, 2);
  ASSERT_TRUE(two);
  EXPECT_EQ(two->path, "/sys/fs/cgroup/unified");
  EXPECT_EQ(two->root, "/docker/x");
  EXPECT_FALSE(find_cgroup_mount(text.substr(0, 100), 2));
  for (std::size_t size = 0; size < text.size(); ++size) {
    static_cast<void>(find_cgroup_mount(text.substr(0, size), 2));
  }
}

TEST(Cgroup, OfAThread) {
  constexpr std::string_view hybrid =
      "9:name=systemd:/a\n6:devices,freezer:/machine/web1\n0::/machine.slice/web1.scope\n";
  EXPECT_EQ(find_cgroup(hybrid, 1), "/machine/web1");
  EXPECT_EQ(find_cgroup(hybrid, 2), "/machine.slice/web1.scope");
  EXPECT_FALSE(find_cgroup("0::/x\n", 1));
  EXPECT_FALSE(find_cgroup("6:freezer:/x\n", 2));
  EXPECT_FALSE(find_cgroup("0::\n0\n:::\n", 2));
}

}  // namespace
}  // namespace vmsight::halt_freezer_test
