// The stop halter, against a monitor that is no QEMU.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>

#include "support/fake_monitor.h"
#include "vmsight/halt.h"

namespace vmsight::halt_stop_test {
namespace {

using test::FakeMonitor;
using test::MonitoredVm;

bool has(const std::vector<std::string>& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

TEST(StopHalter, StopsAndResumes) {
  FakeMonitor monitor;
  const MonitoredVm vm(monitor);
  auto halter = open_stop_halter(vm);
  ASSERT_TRUE(halter) << halter.error().message;
  EXPECT_EQ(monitor.status(), "running") << "opening disturbs nothing";
  for (int i = 0; i < 3; ++i) {
    auto paused = (*halter)->halt();
    ASSERT_TRUE(paused) << paused.error().message;
    EXPECT_EQ(monitor.status(), "paused");
    const auto resumed = paused->resume();
    ASSERT_TRUE(resumed);
    EXPECT_GT(*resumed, 0u);
    EXPECT_EQ(monitor.status(), "running");
  }
}

TEST(StopHalter, WhatOthersStoppedStaysStopped) {
  FakeMonitor monitor;
  monitor.set_status("io-error");
  const MonitoredVm vm(monitor);
  {
    auto halter = open_stop_halter(vm);
    ASSERT_TRUE(halter);
    auto paused = (*halter)->halt();
    ASSERT_TRUE(paused);
    const auto resumed = paused->resume();
    ASSERT_TRUE(resumed);
    EXPECT_EQ(*resumed, 0u) << "it did not stand for us";
  }
  EXPECT_EQ(monitor.status(), "io-error");
  EXPECT_FALSE(has(monitor.asked(), "stop"));
  EXPECT_FALSE(has(monitor.asked(), "cont"));
}

TEST(StopHalter, RefusesStatesThatEndByThemselves) {
  FakeMonitor monitor;
  monitor.set_status("suspended");
  const MonitoredVm vm(monitor);
  auto halter = open_stop_halter(vm);
  ASSERT_TRUE(halter);
  const auto paused = (*halter)->halt();
  ASSERT_FALSE(paused);
  EXPECT_EQ(paused.error().code, ErrorCode::unsupported);
}

TEST(StopHalter, AStopThatIsRefusedIsUndone) {
  FakeMonitor monitor;
  monitor.refuse("stop");
  const MonitoredVm vm(monitor);
  auto halter = open_stop_halter(vm);
  ASSERT_TRUE(halter);
  EXPECT_FALSE((*halter)->halt());
  EXPECT_EQ(monitor.asked().back(), "cont");
}

TEST(StopHalter, TheGuestRunsOnWhenTheLeaseRunsOut) {
  FakeMonitor monitor;
  const MonitoredVm vm(monitor);
  auto halter = open_stop_halter(vm, std::chrono::milliseconds(50));
  ASSERT_TRUE(halter);
  auto paused = (*halter)->halt();
  ASSERT_TRUE(paused) << paused.error().message;
  EXPECT_TRUE(monitor.becomes("running"));
  const auto resumed = paused->resume();
  ASSERT_FALSE(resumed);
  EXPECT_EQ(resumed.error().code, ErrorCode::timeout);
  auto again = (*halter)->halt();
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE(again->resume());
}

/// Kills a child that has stopped the guest.
void die_halting(const Vm& vm) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto halter = open_stop_halter(vm);
    if (!halter) ::_exit(1);
    const auto paused = (*halter)->halt();
    if (!paused) ::_exit(2);
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "exit status " << WEXITSTATUS(status);
}

TEST(StopHalter, ItsGuardResumesIfWeAreKilled) {
  FakeMonitor monitor;
  const MonitoredVm vm(monitor);
  die_halting(vm);
  EXPECT_TRUE(has(monitor.asked(), "stop"));
  EXPECT_TRUE(monitor.becomes("running"));
}

TEST(StopHalter, ItsGuardLeavesAPausedGuestAlone) {
  FakeMonitor monitor;
  monitor.set_status("paused");
  const MonitoredVm vm(monitor);
  die_halting(vm);
  EXPECT_FALSE(has(monitor.asked(), "cont"));
}

}  // namespace
}  // namespace vmsight::halt_stop_test
