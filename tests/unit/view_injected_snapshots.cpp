// live-snap:uffd and live-snap:fork against a child process that writes its RAM all the time.
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include "host/process.h"
#include "inject/process_copy.h"
#include "inject/undo_copy.h"
#include "support/busy_vm.h"
#include "undo/guard.h"
#include "undo/recovery.h"
#include "view/fork_snapshot.h"
#include "view/uffd_snapshot.h"
#include "vmsight/view.h"

namespace vmsight::view_injected_snapshots_test {
namespace {

using test::BusyVm;

enum class Kind { uffd, uffd_without_holes, fork };

struct Case {
  Kind kind;
  Backing backing;
};

std::string name(const ::testing::TestParamInfo<Case>& info) {
  constexpr const char* kinds[] = {"uffd", "uffd_without_holes", "fork"};
  constexpr const char* backings[] = {"anonymous", "shared", "private"};
  return std::string(kinds[static_cast<int>(info.param.kind)]) + "_" +
         backings[static_cast<int>(info.param.backing)];
}

Result<std::unique_ptr<GuestMemory>> open(const Vm& vm, Kind kind) {
  std::unique_ptr<Snapshotter> snapshotter;
  if (kind == Kind::fork) {
    VMSIGHT_TRY(snapshotter, ForkSnapshotter::open(vm));
  } else {
    VMSIGHT_TRY(WriteProtectSupport support, check_write_protect(vm));
    if (kind == Kind::uffd_without_holes) support.unpopulated = false;
    VMSIGHT_TRY(snapshotter, UffdSnapshotter::open(vm, support));
  }
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> live, open_live_read(vm));
  std::unique_ptr<GuestMemory> memory = std::make_unique<SnapshotMemory>(
      "live-snap:test", Taken::while_running, std::move(live), std::move(snapshotter));
  return memory;
}

class InjectedSnapshot : public ::testing::TestWithParam<Case> {
 protected:
  InjectedSnapshot() : busy_(GetParam().backing) {}
  void SetUp() override {
    auto memory = open(busy_.vm(), GetParam().kind);
    ASSERT_TRUE(memory) << memory.error().message;
    memory_ = *std::move(memory);
  }
  void TearDown() override {
    memory_.reset();
    if (busy_.vm().check_alive()) {
      EXPECT_EQ(busy_.damage_after_a_second(), "");
    }
  }
  std::uint64_t value(std::uint64_t address) {
    std::uint64_t value = ~0ULL;
    EXPECT_TRUE(
        read_phys(*memory_, GuestPhys(address), std::as_writable_bytes(std::span(&value, 1))))
        << (memory_->health() ? "" : memory_->health().error().message);
    return value;
  }
  /// A worker writes its pages in order: at any moment those up to some page have the number of
  /// its round, and the others that of the round before.
  static void expect_one_moment(const std::vector<std::uint64_t>& values) {
    const bool falls = std::is_sorted(values.rbegin(), values.rend());
    EXPECT_TRUE(falls && values.back() + 1 >= values.front())
        << "from " << values.front() << " to " << values.back();
  }
  std::uint64_t worker_value(unsigned worker, std::uint64_t page) {
    return value((worker * BusyVm::pages_each + page) * page_size);
  }

  BusyVm busy_;
  std::unique_ptr<GuestMemory> memory_;
};

TEST_P(InjectedSnapshot, ShowsOneMoment) {
  for (int view = 0; view < 40; ++view) {
    auto taken = memory_->refresh();
    ASSERT_TRUE(taken) << taken.error().message;
    EXPECT_FALSE(memory_->is_live());
    for (unsigned worker = 0; worker < BusyVm::workers; ++worker) {
      const std::uint64_t first = worker_value(worker, 0);
      // It runs on and overwrites everything, before and while the rest is read.
      const std::uint64_t begun = busy_.rounds(worker);
      while (view % 2 == 0 && busy_.rounds(worker) < begun + 3) std::this_thread::yield();
      ASSERT_GT(first, 0U);
      ASSERT_LE(first, busy_.rounds(worker) + 1) << "the round that it is in";
      std::vector<std::uint64_t> values(BusyVm::pages_each, first);
      for (std::uint64_t page = BusyVm::pages_each - 1; page > 0; --page) {
        values[page] = worker_value(worker, page);
      }
      expect_one_moment(values);
    }
    EXPECT_GT(memory_->counters().pause_ns, 0U);
    ASSERT_TRUE(memory_->health());
    ASSERT_TRUE(memory_->end_view());
  }
}

TEST_P(InjectedSnapshot, ScansAndFreshReadsShowTheSameMoment) {
  constexpr std::uint64_t size = BusyVm::first_hole;
  std::vector<std::byte> all(size);
  for (int view = 0; view < 10; ++view) {
    ASSERT_TRUE(memory_->refresh());
    const std::uint64_t first = worker_value(1, 0);
    const std::uint64_t begun = busy_.rounds(1);
    while (busy_.rounds(1) < begun + 2) std::this_thread::yield();
    ASSERT_TRUE(memory_->scan(GuestPhys(0), all));
    std::uint64_t fresh = 0, scanned = 0;
    std::vector<std::uint64_t> values;
    for (std::uint64_t page = 0; page < BusyVm::pages_each; ++page) {
      const std::uint64_t at = (BusyVm::pages_each + page) * page_size;
      FreshRead read{GuestPhys(at), std::as_writable_bytes(std::span(&fresh, 1))};
      ASSERT_TRUE(memory_->read_fresh({&read, 1}));
      ASSERT_TRUE(read.ok);
      std::memcpy(&scanned, all.data() + at, sizeof(scanned));
      EXPECT_EQ(scanned, fresh) << "scanned page " << page;
      values.push_back(fresh);
    }
    EXPECT_EQ(values.front(), first);
    expect_one_moment(values);
  }
}

TEST_P(InjectedSnapshot, HolesThatAreWrittenLaterAreZeros) {
  for (std::uint64_t view = 0; view < 4; ++view) {
    ASSERT_TRUE(memory_->refresh());
    const std::uint64_t hole = BusyVm::first_hole + (view + 1) * 16 * page_size;
    busy_.vm().put(GuestPhys(hole), std::uint64_t{77});
    EXPECT_EQ(value(hole), 0U);
    if (view > 0) {
      EXPECT_EQ(value(hole - 16 * page_size), 77U) << "written before this snapshot";
    }
    ASSERT_TRUE(memory_->end_view());
    EXPECT_EQ(value(hole), 77U) << "live between views";
  }
}

TEST_P(InjectedSnapshot, AViewThatNobodyEndsIsEndedWithItsMemory) {
  ASSERT_TRUE(memory_->refresh());
  memory_.reset();
  EXPECT_EQ(busy_.damage_after_a_second(), "");
}

TEST_P(InjectedSnapshot, TheVmMayEndInAView) {
  ASSERT_TRUE(memory_->refresh());
  EXPECT_GT(worker_value(0, 1), 0U);
  busy_.vm().end();
  const auto health = memory_->health();
  ASSERT_FALSE(health);
  EXPECT_EQ(health.error().code, ErrorCode::vm_gone);
  static_cast<void>(memory_->end_view());
  const auto again = memory_->refresh();
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::vm_gone);
}

/// A process of its own that takes views as fast as it can, as vmsight does.
pid_t start_monitor(BusyVm& busy, Kind kind) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  const auto give_up = [](const Error& why) {
    std::fprintf(stderr, "the monitor gives up: %s\n", why.message.c_str());
    ::_exit(1);
  };
  auto memory = open(busy.vm(), kind);
  if (!memory) give_up(memory.error());
  std::uint64_t value = 0;
  while (true) {
    if (auto taken = (*memory)->refresh(); !taken) give_up(taken.error());
    for (std::uint64_t page = 0; page < 128; ++page) {
      read_phys(**memory, GuestPhys(page * page_size),
                std::as_writable_bytes(std::span(&value, 1)));
    }
    if (auto ended = (*memory)->end_view(); !ended) give_up(ended.error());
  }
}

TEST_P(InjectedSnapshot, AKilledMonitorLeavesNothing) {
  std::mt19937 random(20261124);
  for (int kill = 0; kill < 25; ++kill) {
    const pid_t monitor = start_monitor(busy_, GetParam().kind);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 60'000));
    ::kill(monitor, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(monitor, &status, 0), monitor);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it gave up by itself";
    ASSERT_EQ(busy_.damage_after_a_second(), "") << "kill " << kill;
  }
}

INSTANTIATE_TEST_SUITE_P(All, InjectedSnapshot,
                         ::testing::Values(Case{Kind::uffd, Backing::anonymous},
                                           Case{Kind::uffd, Backing::shared_file},
                                           Case{Kind::uffd, Backing::private_file},
                                           Case{Kind::uffd_without_holes, Backing::anonymous},
                                           Case{Kind::fork, Backing::anonymous},
                                           Case{Kind::fork, Backing::private_file}),
                         name);

/// Lets one ptrace call fail.
class FailingTracing final : public Tracing {
 public:
  explicit FailingTracing(int fails) : left_(fails) {}
  long ptrace(int request, pid_t tid, std::uint64_t address, std::uint64_t data) override {
    if (left_-- == 0) {
      errno = EIO;
      return -1;
    }
    return Tracing::ptrace(request, tid, address, data);
  }
  bool failed() const { return left_ < 0; }

 private:
  int left_;
};

/// What a guard would do, in a process of its own: its exit status, or what killed it, negative. One that waits for
/// ever is killed by SIGALRM.
int as_guard(const std::function<int()>& act) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    sigset_t all;
    ::sigfillset(&all);
    ::sigdelset(&all, SIGALRM);
    ::sigprocmask(SIG_SETMASK, &all, nullptr);
    ::alarm(10);
    ::_exit(act());
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void make_and_remove_copy(const Vm& vm, Tracing& tracing) {
  auto copy = ProcessCopy::make(vm.info().pid, vm.blocks(), tracing);
  if (copy) static_cast<void>(copy->remove());
}

/// 0 if no call was left to fail, else 1.
int with_failure(const Vm& vm, Kind kind, int step) {
  return as_guard([&] {
    FailingTracing tracing(step);
    if (kind == Kind::fork) {
      make_and_remove_copy(vm, tracing);
    } else {
      const WriteProtect::Run run{vm.blocks()[0].host, BusyVm::ram_size};
      static_cast<void>(WriteProtect::open(vm.info().pid, {&run, 1}, false, tracing));
    }
    return tracing.failed() ? 1 : 0;
  });
}

class Failures : public ::testing::TestWithParam<Kind> {};

TEST_P(Failures, AtEveryStepTheVmRunsOnAsBefore) {
  BusyVm busy(Backing::anonymous);
  int step = 0;
  for (int outcome = 1; outcome != 0; ++step) {
    outcome = with_failure(busy.vm(), GetParam(), step);
    ASSERT_TRUE(outcome == 0 || outcome == 1) << "step " << step << ": " << outcome;
    ASSERT_EQ(busy.damage_after_a_second(), "") << "step " << step;
  }
  EXPECT_GT(step, 15) << "each system call takes several steps";
}

INSTANTIATE_TEST_SUITE_P(All, Failures, ::testing::Values(Kind::uffd, Kind::fork),
                         [](const auto& kind) {
                           return std::string(kind.param == Kind::fork ? "fork" : "uffd");
                         });

/// Kills the VM after one ptrace call.
class FatalTracing final : public Tracing {
 public:
  FatalTracing(pid_t vm, int kills) : vm_(vm), left_(kills) {}
  long ptrace(int request, pid_t tid, std::uint64_t address, std::uint64_t data) override {
    const long done = Tracing::ptrace(request, tid, address, data);
    if (left_-- == 0) ::kill(vm_, SIGKILL);
    return done;
  }
  bool killed() const { return left_ < 0; }

 private:
  pid_t vm_;
  int left_;
};

/// A guard that traces another thread of the VM too, as one does that halts it; 1 if the VM was
/// killed meanwhile, 0 if not.
int with_death(const Vm& vm, int step) {
  return as_guard([&] {
    const pid_t process = vm.info().pid;
    const auto threads = list_threads(process);
    if (!threads) return 3;
    for (const pid_t tid : *threads) {
      if (tid != process && ::ptrace(PTRACE_SEIZE, tid, nullptr, nullptr) != 0) return 4;
    }
    FatalTracing tracing(process, step);
    make_and_remove_copy(vm, tracing);
    return tracing.killed() ? 1 : 0;
  });
}

TEST(ForkSnapshot, AVmThatDiesMeanwhileIsNoticedAtEveryStep) {
  int step = 0;
  for (int outcome = 1; outcome != 0; ++step) {
    BusyVm busy(Backing::anonymous);
    outcome = with_death(busy.vm(), step);
    ASSERT_TRUE(outcome == 0 || outcome == 1) << "step " << step << ": " << outcome;
  }
  EXPECT_GT(step, 15);
}

/// Kills its process before one ptrace call.
class DeadlyTracing final : public Tracing {
 public:
  explicit DeadlyTracing(int dies) : left_(dies) {}
  long ptrace(int request, pid_t tid, std::uint64_t address, std::uint64_t data) override {
    if (left_-- == 0) ::raise(SIGKILL);
    return Tracing::ptrace(request, tid, address, data);
  }

 private:
  int left_;
};

/// A guard that is killed while it makes or removes a copy; whether it was.
bool killed_at(const Vm& vm, int step) {
  return as_guard([&] {
           DeadlyTracing tracing(step);
           make_and_remove_copy(vm, tracing);
           return 0;
         }) == -SIGKILL;
}

/// By a guard, as recovery does it.
Result<void> undo(const Vm& vm, const nlohmann::json& payload) {
  VMSIGHT_TRY(const auto guard, Guard::start({vm.info().pid, vm.info().start_time},
                                             {.service = "undo",
                                              .config = {{"kind", "fork"}, {"payload", payload}},
                                              .descriptors = {}}));
  auto done = guard->ask(GuardRequest::undo);
  if (!done) return std::move(done).error();
  return {};
}

TEST(ForkSnapshot, WhatAKilledGuardLeavesIsTakenAway) {
  BusyVm busy(Backing::anonymous);
  const auto payload = describe_copy(busy.vm().blocks());
  bool was_a_child = false, was_no_child = false;
  int step = 0;
  for (; killed_at(busy.vm(), step); ++step) {
    const std::string left = busy.damage();
    was_a_child |= left == "it has a child";
    was_no_child |= left == "its RAM would be in children";
    const auto undone = undo(busy.vm(), payload);
    ASSERT_TRUE(undone) << "step " << step << ": " << undone.error().message;
    busy.forgive_disturbed_calls();  // the thread that was borrowed then saw its call end early
    ASSERT_EQ(busy.damage_after_a_second(), "") << "step " << step;
  }
  EXPECT_GT(step, 15);
  EXPECT_TRUE(was_a_child && was_no_child) << "there was something to take away";
}

/// What a thread that waits for a lock relies on: the call's own registers outlast it.
struct Waiter {
  std::atomic<std::uint32_t> word = 0;
  std::atomic<unsigned> rounds = 0, wrong = 0;

  [[noreturn]] void run() {
    while (true) {
      long result = SYS_futex;
      std::uint64_t address = reinterpret_cast<std::uint64_t>(&word), operation = 0, value = 0;
      register std::uint64_t timeout asm("r10") = 0;
      register std::uint64_t eighth asm("r8") = 0x1122334455667788;
      register std::uint64_t ninth asm("r9") = 0x99aabbccddeeff00;
      double kept = 0.125;
      asm volatile("syscall"
                   : "+a"(result), "+D"(address), "+S"(operation), "+d"(value), "+r"(timeout),
                     "+r"(eighth), "+r"(ninth), "+x"(kept)
                   :
                   : "rcx", "r11", "memory");
      const bool right = result == 0 && address == reinterpret_cast<std::uint64_t>(&word) &&
                         operation == 0 && value == 0 && timeout == 0 &&
                         eighth == 0x1122334455667788 && ninth == 0x99aabbccddeeff00 &&
                         kept == 0.125;
      if (!right) ++wrong;
      ++rounds;
    }
  }
  /// Whether it wakes as if nothing had been.
  bool wakes() {
    for (const unsigned before = rounds; rounds == before; ::usleep(100)) {
      if (::syscall(SYS_futex, &word, 1 /* FUTEX_WAKE */, 1) < 0) return false;
    }
    return wrong == 0;
  }
};

TEST(BorrowedThread, FindsItsOwnWayBackWhenItsTracerIsKilled) {
  const Mapping shared(
      ::mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
      page_size);
  auto* const waiter = new (const_cast<std::byte*>(shared.bytes().data())) Waiter;
  test::ChildVm vm(Backing::anonymous, {{GuestPhys(0), 1 << 20}},
                   [&](std::byte*) { waiter->run(); });
  ASSERT_TRUE(waiter->wakes());
  int step = 0;
  for (; killed_at(vm, step); ++step) {
    const auto undone = undo(vm, describe_copy(vm.blocks()));
    ASSERT_TRUE(undone) << "step " << step << ": " << undone.error().message;
    ASSERT_TRUE(waiter->wakes()) << "step " << step;
    const auto status = read_proc_file(vm.info().pid, "status");
    ASSERT_TRUE(status);
    EXPECT_EQ(parse_status_field(*status, "SigBlk"), "0000000000000000") << "step " << step;
  }
  EXPECT_GT(step, 15);
}

TEST(ForkSnapshot, ARecordLastsAsLongAsTheCopy) {
  BusyVm busy(Backing::anonymous);
  const auto records = [&] {
    auto all = read_journal();
    std::erase_if(all, [&](const Record& r) { return r.vm.pid != busy.vm().info().pid; });
    return all;
  };
  auto snapshotter = *ForkSnapshotter::open(busy.vm());
  EXPECT_TRUE(records().empty());
  {
    const auto snapshot = snapshotter->take();
    ASSERT_TRUE(snapshot) << snapshot.error().message;
    ASSERT_EQ(records().size(), 1U);
    EXPECT_EQ(records()[0].change.kind, "fork");
    EXPECT_EQ(records()[0].guard.pid, snapshotter->guard());
  }
  EXPECT_TRUE(records().empty());
  ASSERT_TRUE(snapshotter->take());
  EXPECT_TRUE(records().empty());
}

TEST(ForkSnapshot, ChildrenOfQemusOwnAreLeftAlone) {
  EXPECT_FALSE(
      has_no_exit_signal("7 (a) b) S 1 7 7 0 -1 64 1 2 3 4 5 6 7 8 20 0 1 0 9 10 11 12 13 14 15 "
                         "16 17 18 19 20 21 22 23 24 17 2 0"));
  EXPECT_TRUE(
      has_no_exit_signal("7 (a) b) S 1 7 7 0 -1 64 1 2 3 4 5 6 7 8 20 0 1 0 9 10 11 12 13 14 15 "
                         "16 17 18 19 20 21 22 23 24 0 2 0"));
  EXPECT_FALSE(has_no_exit_signal("7 (a) b) S 1 7 7 0"));
  const pid_t own = ::fork();
  if (own == 0) {
    while (true) ::pause();
  }
  const auto copies = copies_of(::getpid());
  EXPECT_EQ(std::count(copies.begin(), copies.end(), own), 0);
  ::kill(own, SIGKILL);
  ::waitpid(own, nullptr, 0);
}

TEST(ForkSnapshot, UndoRefusesWhatIsNoRecord) {
  BusyVm busy(Backing::anonymous);
  for (const char* text : {"[]", "{}", R"({"blocks":1})", R"({"blocks":[1]})",
                           R"({"blocks":[{"host":-1,"size":1}]})"}) {
    EXPECT_FALSE(undo(busy.vm(), nlohmann::json::parse(text))) << text;
  }
}

TEST(ForkSnapshot, SaysWhySharedMemoryCannotBeCopied) {
  BusyVm busy(Backing::shared_file);
  const auto refused = check_fork(busy.vm());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
  EXPECT_NE(refused.error().hint.find("live-snap:uffd"), std::string::npos);
}

TEST(ForkSnapshot, SaysWhoTracesTheProcess) {
  test::ChildVm vm(Backing::anonymous, {{GuestPhys(0), 1 << 20}});
  ASSERT_TRUE(check_fork(vm));
  ASSERT_EQ(::ptrace(PTRACE_SEIZE, vm.info().pid, 0, 0), 0);
  for (const auto& refused : {check_fork(vm), Result<void>(check_write_protect(vm).error())}) {
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::permission);
    EXPECT_NE(refused.error().message.find(std::to_string(::getpid())), std::string::npos);
  }
}

TEST(UffdSnapshot, SaysThatAnotherHasTheMemory) {
  BusyVm busy(Backing::anonymous);
  auto first = *open(busy.vm(), Kind::uffd);
  ASSERT_TRUE(first->refresh());
  const auto second = check_write_protect(busy.vm());
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another userfaultfd"), std::string::npos);
}

TEST(UffdSnapshot, AGuardThatIsKilledEndsTheViewNotTheVm) {
  BusyVm busy(Backing::anonymous);
  auto snapshotter = *UffdSnapshotter::open(busy.vm(), *check_write_protect(busy.vm()));
  for (int round = 0; round < 3; ++round) {
    auto snapshot = snapshotter->take();
    ASSERT_TRUE(snapshot) << snapshot.error().message;
    ASSERT_TRUE(snapshot->memory->health());
    ::kill(snapshotter->guard(), SIGKILL);
    siginfo_t ended{};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(snapshotter->guard()), &ended, WEXITED | WNOWAIT),
              0);
    EXPECT_FALSE(snapshot->memory->health());
    EXPECT_EQ(busy.damage_after_a_second(), "");
  }
}

}  // namespace
}  // namespace vmsight::view_injected_snapshots_test
