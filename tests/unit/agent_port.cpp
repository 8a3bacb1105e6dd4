#include "agent/agent_port.h"

#include <gtest/gtest.h>

#include <sys/un.h>
#include <chrono>
#include <thread>

#include "host/process.h"
#include "support/agent_peer.h"

namespace vmsight::agent_port_test {
namespace {

using namespace std::chrono_literals;

TEST(UnixSocketPath, IsFoundByInode) {
  const std::string text =
      "Num       RefCount Protocol Flags    Type St Inode Path\n"
      "0000000000000000: 00000002 00000000 00010000 0001 01 1741 /run/agent one\n"
      "0000000000000000: 00000003 00000000 00000000 0001 03 41\n"
      "0000000000000000: 00000002 00000000 00010000 0001 01 17 @abstract";
  EXPECT_EQ(unix_socket_path(text, 1741), "/run/agent one");
  EXPECT_EQ(unix_socket_path(text, 17), "@abstract");
  EXPECT_EQ(unix_socket_path(text, 41), "");
  EXPECT_EQ(unix_socket_path(text, 1), "");
  EXPECT_EQ(unix_socket_path("", 1), "");
}

/// A "QEMU", this process, that listens with a port.
class AgentPortTest : public testing::Test {
 protected:
  AgentPortTest() {
    directory = testing::TempDir() + "vmsight-port-XXXXXX";
    VMSIGHT_CHECK(::mkdtemp(directory.data()) != nullptr);
    path = directory + "/agent";
    listener = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX};
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    VMSIGHT_CHECK(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) ==
                  0);
    VMSIGHT_CHECK(::listen(listener.get(), 1) == 0);
    info.pid = ::getpid();
    info.start_time = identify(info.pid)->start_time;
  }
  ~AgentPortTest() override {
    ::unlink(path.c_str());
    ::rmdir(directory.c_str());
  }
  void arguments(const std::string& chardev, const std::string& device) {
    info.arguments = {"qemu-system-x86_64", "-chardev", chardev, "-device", device};
  }

  std::string directory, path;
  UniqueFd listener;
  VmInfo info;
};

TEST_F(AgentPortTest, IsFoundByItsName) {
  arguments("socket,id=c,path=" + path + ",server=on,wait=off",
            "virtserialport,chardev=c,name=a.0");
  EXPECT_TRUE(AgentPort::connect(info, "a.0"));
  const auto other = AgentPort::connect(info, "b.0");
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::unsupported);
  EXPECT_NE(other.error().hint.find("name=b.0"), std::string::npos);
}

TEST_F(AgentPortTest, IsFoundByTheSocketThatLibvirtPassed) {
  arguments(
      "socket,id=charchannel0,fd=" + std::to_string(listener.get()) + ",server=on,wait=off",
      R"({"driver":"virtserialport","bus":"virtio-serial0.0","nr":1,"chardev":"charchannel0",)"
      R"("id":"channel0","name":"org.qemu.guest_agent.0"})");
  const auto port = AgentPort::connect(info, "org.qemu.guest_agent.0");
  EXPECT_TRUE(port) << port.error().message;
}

TEST_F(AgentPortTest, OtherChardevsAreNoUse) {
  for (const std::string chardev :
       {"pty,id=c", "spicevmc,id=c,name=vdagent", "socket,id=c,host=::1,port=7,server=on",
        "socket,id=c,path=/nowhere", "socket,id=c,fd=0,server=on",
        "socket,id=other,path=/x,server=on"}) {
    arguments(chardev, "virtserialport,chardev=c,name=a.0");
    const auto port = AgentPort::connect(info, "a.0");
    ASSERT_FALSE(port) << chardev;
    EXPECT_EQ(port.error().code, ErrorCode::unsupported) << chardev;
    EXPECT_NE(port.error().hint, "");
  }
}

TEST_F(AgentPortTest, SaysWhoHoldsIt) {
  arguments("socket,id=c,path=" + path + ",server=on,wait=off",
            "virtserialport,chardev=c,name=a.0");
  const auto first = AgentPort::connect(info, "a.0");
  ASSERT_TRUE(first);
  const UniqueFd served(::accept(listener.get(), nullptr, nullptr));
  const auto second = AgentPort::connect(info, "a.0");
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_NE(second->silence("them", "a hint").message.find("held by another"), std::string::npos);
  EXPECT_EQ(first->silence("them", "a hint").hint, "a hint");
}

TEST(AgentPortExchange, KeepsWhatWasNotUsedUp) {
  test::AgentPeer peer([](int socket) {
    test::hear(socket);
    test::say(socket, "onetwo");
    test::hear(socket);
  });
  AgentPort port = peer.port();
  const auto take = [](std::string_view wanted) {
    return [wanted](std::string_view came) -> Result<AgentPort::Taken> {
      if (came.substr(0, 3) == wanted) return AgentPort::Taken{3, true};
      return AgentPort::Taken{};
    };
  };
  EXPECT_TRUE(port.exchange("x", take("one"), 5s));
  EXPECT_TRUE(port.exchange("", take("two"), 5s));
  EXPECT_EQ(port.exchange("", take("six"), 20ms).error().code, ErrorCode::timeout);
}

TEST(AgentPortExchange, WaitsForAsLongAsSomethingComesButNotForEver) {
  test::AgentPeer peer([](int socket) {
    test::hear(socket);
    for (int i = 0; i < 100; ++i) {
      test::say(socket, "x");
      std::this_thread::sleep_for(20ms);
    }
  });
  AgentPort port = peer.port();
  const auto until = [](std::size_t wanted) {
    return [wanted](std::string_view came) -> Result<AgentPort::Taken> {
      return AgentPort::Taken{0, came.size() >= wanted};
    };
  };
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_TRUE(
      port.exchange("x", until(20), 300ms));  // longer than the patience, and never so long silent
  EXPECT_EQ(port.exchange("", until(1000), 50ms).error().code, ErrorCode::timeout);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 10s);
}

}  // namespace
}  // namespace vmsight::agent_port_test
