#include "host/unix_socket.h"

#include <gtest/gtest.h>

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <csignal>
#include <filesystem>

#include "qemu/qmp.h"

namespace vmsight::host_unix_socket_test {
namespace {

using namespace std::chrono_literals;

class ListenerTest : public testing::Test {
 protected:
  ListenerTest() : listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    std::string pattern = testing::TempDir() + "vmsight-listener-XXXXXX";
    directory = ::mkdtemp(pattern.data());
    path = directory + "/socket";
    sockaddr_un address{.sun_family = AF_UNIX};
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener.get(), 4) != 0) {
      std::abort();
    }
  }
  ~ListenerTest() override {
    for (const pid_t child : children) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
    std::filesystem::remove_all(directory);
  }
  /// A process that has the listening socket from us, or has nothing.
  pid_t child(bool holds) {
    int ready[2];
    if (::pipe(ready) != 0) std::abort();
    const UniqueFd read_end(ready[0]), write_end(ready[1]);
    const pid_t pid = ::fork();
    if (pid == 0) {
      if (!holds) ::close(listener.get());
      if (::write(write_end.get(), "+", 1) != 1) ::_exit(1);
      while (true) ::pause();
    }
    char byte = 0;
    if (::read(read_end.get(), &byte, 1) != 1) std::abort();
    children.push_back(pid);
    return pid;
  }
  Result<UniqueFd> connect() {
    return connect_unix(path, std::chrono::steady_clock::now() + 1s, "a test", "");
  }

  std::string directory, path;
  UniqueFd listener;
  std::vector<pid_t> children;
};

TEST_F(ListenerTest, IsTheProcessItself) {
  const auto socket = connect();
  ASSERT_TRUE(socket) << socket.error().message;
  EXPECT_TRUE(check_listener(socket->get(), ::getpid(), "a test"));
}

TEST_F(ListenerTest, MayHaveBeenPassedOn) {
  const auto socket = connect();
  ASSERT_TRUE(socket);
  const auto passed = check_listener(socket->get(), child(true), "a test");
  EXPECT_TRUE(passed) << passed.error().message;
}

TEST_F(ListenerTest, OfAnotherProcessIsRefusedAndNothingIsSent) {
  const pid_t other = child(false);
  const auto client = QmpClient::connect(path, other, 1s);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code, ErrorCode::permission);
  EXPECT_NE(client.error().message.find(std::to_string(other)), std::string::npos);
  const UniqueFd served(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(served);
  char byte = 0;
  EXPECT_EQ(::recv(served.get(), &byte, 1, 0), 0) << "something was said before it was refused";
}

}  // namespace
}  // namespace vmsight::host_unix_socket_test
