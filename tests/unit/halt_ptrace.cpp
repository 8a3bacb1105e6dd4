// The ptrace halter and the finding of vCPU threads, against child processes that count.
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <future>
#include <thread>

#include "base/clock.h"
#include "halt/traced_threads.h"
#include "halt/vcpu_threads.h"
#include "host/process.h"
#include "support/counting_vm.h"
#include "vmsight/halt.h"

namespace vmsight::halt_ptrace_test {
namespace {

using test::comes_true;
using test::CountingVm;
using test::ThreadNames;

std::unique_ptr<Halter> open_halter(const Vm& vm) {
  auto halter = open_ptrace_halter(vm);
  EXPECT_TRUE(halter) << halter.error().message;
  return halter ? *std::move(halter) : nullptr;
}

bool all_count(const CountingVm& vm) {
  for (unsigned i = 0; i < vm.vcpus(); ++i) {
    if (!vm.counts(i)) return false;
  }
  return true;
}

TEST(PtraceHalter, StopsEveryVcpuAndResumesIt) {
  const CountingVm vm(3);
  const auto halter = open_halter(vm);
  ASSERT_TRUE(halter);
  for (int i = 0; i < 5; ++i) {
    const Stopwatch whole;
    auto paused = halter->halt();
    ASSERT_TRUE(paused) << paused.error().message;
    EXPECT_TRUE(vm.stands());
    const Stopwatch stood;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const std::uint64_t at_least = stood.elapsed_ns();
    const auto resumed = paused->resume();
    ASSERT_TRUE(resumed);
    EXPECT_GE(*resumed, at_least);
    EXPECT_LE(*resumed, whole.elapsed_ns());
    EXPECT_TRUE(all_count(vm));
    EXPECT_EQ(tracer_of(vm.info().pid, vm.thread(0)), 0) << "nothing stays seized";
  }
}

TEST(PtraceHalter, LeavesOtherThreadsAlone) {
  CountingVm vm(2);
  const auto halter = open_halter(vm);
  const auto paused = halter->halt();
  ASSERT_TRUE(paused);
  EXPECT_EQ(tracer_of(vm.info().pid, vm.info().pid), 0);
  EXPECT_NE(tracer_of(vm.info().pid, vm.thread(1)), 0);
}

TEST(PtraceHalter, StopsAllThreadsIfNoneIsNamed) {
  const CountingVm vm(2, ThreadNames::none);
  const auto found = find_vcpu_threads(vm.info());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->source, "all threads");
  EXPECT_EQ(found->tids.size(), 3U);
  EXPECT_TRUE(found->others.empty());
  const auto halter = open_halter(vm);
  auto paused = halter->halt();
  ASSERT_TRUE(paused);
  EXPECT_TRUE(vm.stands());
  ASSERT_TRUE(paused->resume());
  EXPECT_TRUE(all_count(vm));
}

TEST(PtraceHalter, DestructorsResume) {
  const CountingVm vm(2);
  auto halter = open_halter(vm);
  {
    const auto paused = halter->halt();
    ASSERT_TRUE(paused);
  }
  EXPECT_TRUE(all_count(vm));
}

TEST(PtraceHalter, StopsAVcpuThatWasPluggedIn) {
  CountingVm vm(1);
  const auto halter = open_halter(vm);
  vm.plug();
  auto paused = halter->halt();
  ASSERT_TRUE(paused) << paused.error().message;
  ASSERT_EQ(vm.vcpus(), 2U);
  EXPECT_TRUE(vm.stands());
  ASSERT_TRUE(paused->resume());
  EXPECT_TRUE(all_count(vm));
}

TEST(PtraceHalter, LosesNoSignal) {
  const CountingVm vm(2);
  const auto halter = open_halter(vm);
  constexpr std::uint64_t rounds = 20;
  for (std::uint64_t i = 0; i < rounds; ++i) {
    vm.signal(0);  // races with the stop
    auto paused = halter->halt();
    ASSERT_TRUE(paused) << paused.error().message;
    const std::uint64_t before = vm.signals_seen();
    vm.signal(1);  // while it stands
    EXPECT_EQ(vm.signals_seen(), before);
    ASSERT_TRUE(paused->resume());
  }
  EXPECT_TRUE(comes_true([&] { return vm.signals_seen() == 2 * rounds; })) << vm.signals_seen();
}

TEST(PtraceHalter, AStoppedProcessStaysStopped) {
  const CountingVm vm(2);
  const auto halter = open_halter(vm);
  ASSERT_EQ(::kill(vm.info().pid, SIGSTOP), 0);
  ASSERT_TRUE(comes_true([&] { return is_stopped(vm.info().pid) && vm.stands(); }));
  auto paused = halter->halt();
  ASSERT_TRUE(paused) << paused.error().message;
  ASSERT_TRUE(paused->resume());
  EXPECT_TRUE(vm.stands());
  ASSERT_EQ(::kill(vm.info().pid, SIGCONT), 0);
  EXPECT_TRUE(all_count(vm));
}

TEST(PtraceHalter, ContinuedWhileItStandsItRunsAfterwards) {
  const CountingVm vm(1);
  const auto halter = open_halter(vm);
  ASSERT_EQ(::kill(vm.info().pid, SIGSTOP), 0);
  ASSERT_TRUE(comes_true([&] { return is_stopped(vm.info().pid) && vm.stands(); }));
  auto paused = halter->halt();
  ASSERT_TRUE(paused);
  ASSERT_EQ(::kill(vm.info().pid, SIGCONT), 0);
  EXPECT_TRUE(vm.stands());
  ASSERT_TRUE(paused->resume());
  EXPECT_TRUE(all_count(vm));
}

TEST(PtraceHalter, SaysWhoTracesAlready) {
  const CountingVm vm(2);
  const auto halter = open_halter(vm);
  const pid_t other = ::fork();
  ASSERT_GE(other, 0);
  if (other == 0) {
    ::ptrace(PTRACE_SEIZE, vm.thread(1), nullptr, nullptr);
    while (true) ::pause();
  }
  const ScopeExit end_other([other] {
    ::kill(other, SIGKILL);
    ::waitpid(other, nullptr, 0);
  });
  ASSERT_TRUE(comes_true([&] { return tracer_of(vm.info().pid, vm.thread(1)) == other; }));
  const auto paused = halter->halt();
  ASSERT_FALSE(paused);
  EXPECT_EQ(paused.error().code, ErrorCode::unsupported);
  EXPECT_NE(paused.error().message.find(std::to_string(other)), std::string::npos);
  EXPECT_TRUE(all_count(vm)) << "what was seized before the failure runs on";
}

/// The guard of a vmsight that was killed still ends what it was doing.
TEST(PtraceHalter, WaitsForAnotherGuardAndNothingStandsMeanwhile) {
  const CountingVm vm(2);
  const auto halter = open_halter(vm);
  const pid_t other = ::fork();
  ASSERT_GE(other, 0);
  if (other == 0) {
    ::prctl(PR_SET_NAME, "vmsight-guard");
    ::ptrace(PTRACE_SEIZE, vm.thread(1), nullptr, nullptr);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    ::_exit(0);
  }
  const ScopeExit end_other([other] { ::waitpid(other, nullptr, 0); });
  ASSERT_TRUE(comes_true([&] { return tracer_of(vm.info().pid, vm.thread(1)) == other; }));
  auto halted = std::async(std::launch::async, [&] { return halter->halt(); });
  EXPECT_TRUE(vm.counts(0)) << "while the second one is not to be had";
  auto paused = halted.get();
  ASSERT_TRUE(paused) << paused.error().message;
  ASSERT_TRUE(paused->resume());
  EXPECT_TRUE(all_count(vm));
}

TEST(PtraceHalter, AVmThatEndedIsGone) {
  CountingVm vm(2);
  const auto halter = open_halter(vm);
  {
    auto paused = halter->halt();
    ASSERT_TRUE(paused);
    ASSERT_EQ(::kill(vm.info().pid, SIGKILL), 0);  // it dies while it stands
    EXPECT_TRUE(paused->resume());
  }
  vm.end();  // would hang if a thread of it were still traced
  const auto again = halter->halt();
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::vm_gone);
}

TEST(PtraceHalter, TheGuestRunsOnWhenTheLeaseRunsOut) {
  const CountingVm vm(2);
  auto halter = open_ptrace_halter(vm, std::chrono::milliseconds(50));
  ASSERT_TRUE(halter);
  for (int i = 0; i < 3; ++i) {
    auto paused = (*halter)->halt();
    ASSERT_TRUE(paused) << paused.error().message;
    EXPECT_TRUE(all_count(vm)) << "within a second";
    const auto resumed = paused->resume();
    ASSERT_FALSE(resumed);
    EXPECT_EQ(resumed.error().code, ErrorCode::timeout);
    EXPECT_NE(resumed.error().message.find("50 ms"), std::string::npos);
  }
  EXPECT_TRUE(all_count(vm));
}

TEST(PtraceHalter, TheGuestRunsOnIfWeAreKilled) {
  const CountingVm vm(2);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto halter = open_ptrace_halter(vm);
    auto paused = halter ? (*halter)->halt() : Result<Paused>(halter.error());
    while (paused) ::pause();
    ::_exit(1);
  }
  ASSERT_TRUE(comes_true([&] { return vm.stands(); }));
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  EXPECT_TRUE(all_count(vm));
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
}

TEST(TracedThreads, RegistersOfAStandingThread) {
  const CountingVm vm(1);
  TracedThreads threads(vm.info().pid);
  const pid_t tid = vm.thread(0);
  ASSERT_TRUE(threads.interrupt(std::span(&tid, 1)));
  ASSERT_TRUE(threads.wait(TracedThreads::Clock::now() + std::chrono::seconds(2)));
  const auto registers = threads.registers(tid);
  ASSERT_TRUE(registers);
  EXPECT_NE(registers->rip, 0U);
  ASSERT_TRUE(threads.set_registers(tid, *registers));
  vm.signal(0);
  const auto status =
      threads.run_to_stop(tid, TracedThreads::Clock::now() + std::chrono::seconds(2));
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(WSTOPSIG(*status), SIGRTMIN);
  EXPECT_TRUE(threads.release());
  EXPECT_TRUE(vm.counts(0));
}

TEST(VcpuThreads, AreToldByTheirNames) {
  const CountingVm vm(2);
  const auto found = find_vcpu_threads(vm.info());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->source, "thread names");
  std::vector<pid_t> expected{vm.thread(0), vm.thread(1)};
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(found->tids, expected);
  EXPECT_EQ(found->others, std::vector<pid_t>{vm.info().pid});
}

TEST(VcpuThreads, NamesOfTooFewAreNotTrusted) {
  const CountingVm vm(2);
  VmInfo info = vm.info();
  info.vcpus = 3;
  const auto found = find_vcpu_threads(info);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->source, "all threads");
}

TEST(VcpuThreads, Names) {
  EXPECT_TRUE(is_vcpu_name("CPU 0/TCG"));
  EXPECT_TRUE(is_vcpu_name("CPU 127/KVM"));
  EXPECT_TRUE(is_vcpu_name("ALL CPUs/TCG"));
  EXPECT_FALSE(is_vcpu_name("qemu-system-x86"));
  EXPECT_FALSE(is_vcpu_name("CPU x/KVM"));
  EXPECT_FALSE(is_vcpu_name("CPU 1"));
  EXPECT_FALSE(is_vcpu_name("worker"));
}

TEST(VcpuThreads, StatLine) {
  const auto stat = parse_thread_stat(
      "1171 (CPU 0/KVM) ) S 1 1164 1164 0 -1 4194368 1 2 3 4 5 6 7 8 20 0 4 0 9 10 11 "
      "12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 777 0 30 31\n");
  ASSERT_TRUE(stat);
  EXPECT_EQ(stat->flags, 4194368U);
  EXPECT_EQ(stat->guest_time, 777U);
  EXPECT_FALSE(parse_thread_stat("1171 (CPU 0/KVM) S 1 1164"));
  EXPECT_FALSE(parse_thread_stat(""));
}

TEST(VcpuThreads, WhatTheMonitorSays) {
  using nlohmann::json;
  EXPECT_EQ(parse_cpu_threads(json::parse(R"([{"thread-id":12},{"thread-id":11}])")),
            (std::vector<pid_t>{11, 12}));
  EXPECT_EQ(parse_cpu_threads(json::parse(R"([{"thread-id":12},{"thread-id":12}])")),
            std::vector<pid_t>{12});
  EXPECT_FALSE(parse_cpu_threads(json::parse(R"([{"cpu-index":0}])")));
  EXPECT_FALSE(parse_cpu_threads(json::parse(R"([])")));
  EXPECT_FALSE(parse_cpu_threads(json::parse(R"({"thread-id":12})")));
}

}  // namespace
}  // namespace vmsight::halt_ptrace_test
