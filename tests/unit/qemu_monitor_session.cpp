#include "qemu/monitor_session.h"

#include <gtest/gtest.h>

#include "support/fake_monitor.h"

namespace vmsight::qemu_monitor_session_test {
namespace {

using test::FakeMonitor;
using test::MonitoredVm;

TEST(MonitorSession, AllShareOneConnection) {
  FakeMonitor server;
  server.set_text("text\r\n");
  const VmInfo info = MonitoredVm(server).info();
  {
    auto first = MonitorSession::of(info);
    ASSERT_TRUE(first) << first.error().message;
    auto second = MonitorSession::of(info);
    ASSERT_TRUE(second) << second.error().message;
    EXPECT_EQ(*first, *second);
    EXPECT_EQ((*first)->human("info version").value(), "text\n");
    EXPECT_EQ((*second)->human("info version").value(), "text\n");
  }
  EXPECT_EQ(server.served(), 1);
  auto later = MonitorSession::of(info);  // the connection ended with its last owner
  ASSERT_TRUE(later) << later.error().message;
  EXPECT_EQ(server.served(), 2);
}

TEST(MonitorSession, ABrokenOneIsReplaced) {
  const FakeMonitor broken;
  VmInfo info = MonitoredVm(broken).info();
  auto first = MonitorSession::of(info);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_FALSE((*first)->execute({"quit"}));
  const FakeMonitor next;
  info.qmp_sockets = {next.path()};
  auto second = MonitorSession::of(info);
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_NE(*first, *second);
}

}  // namespace
}  // namespace vmsight::qemu_monitor_session_test
