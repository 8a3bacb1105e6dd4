#include "base/socket_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>

namespace vmsight::base_socket_fd_test {
namespace {

struct Pair {
  explicit Pair(int type = SOCK_STREAM) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()), 0);
    left = UniqueFd(ends[0]);
    right = UniqueFd(ends[1]);
  }
  ssize_t send(std::string_view text, int descriptor = -1) const {
    return send_with_fd(left.get(), std::as_bytes(std::span(text)), descriptor);
  }
  /// What came, at most `most` bytes.
  std::string receive(UniqueFd& descriptor, std::size_t most = 64) const {
    std::string text(most, '\0');
    const ssize_t got =
        receive_with_fd(right.get(), std::as_writable_bytes(std::span(text)), descriptor);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
  }
  UniqueFd left, right;
};

UniqueFd open_null() { return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)); }

bool is_null_device(const UniqueFd& fd) {
  struct stat status {};
  struct stat null {};
  return ::fstat(fd.get(), &status) == 0 && ::stat("/dev/null", &null) == 0 &&
         status.st_rdev == null.st_rdev;
}

std::ptrdiff_t open_descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

/// One byte with two descriptors, as nobody here sends it.
void send_two(const Pair& pair, const UniqueFd& descriptor) {
  const std::array<int, 2> numbers{descriptor.get(), descriptor.get()};
  char byte = 'x';
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof numbers)] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof numbers);
  std::memcpy(CMSG_DATA(rights), numbers.data(), sizeof numbers);
  ASSERT_EQ(::sendmsg(pair.left.get(), &message, MSG_NOSIGNAL), 1);
}

TEST(SocketFd, BytesAloneLeaveTheDescriptorAsItWas) {
  const Pair pair;
  EXPECT_EQ(pair.send("hello"), 5);
  UniqueFd descriptor = open_null();
  EXPECT_EQ(pair.receive(descriptor), "hello");
  EXPECT_TRUE(is_null_device(descriptor));
}

TEST(SocketFd, ADescriptorComesWithTheFirstByteAndIsClosedOnExec) {
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    const Pair pair(type);
    EXPECT_EQ(pair.send("hello", open_null().get()), 5);
    UniqueFd descriptor;
    EXPECT_EQ(pair.receive(descriptor, 1), "h");
    EXPECT_TRUE(is_null_device(descriptor));
    EXPECT_EQ(::fcntl(descriptor.get(), F_GETFD), FD_CLOEXEC);
  }
}

TEST(SocketFd, OfSeveralOnlyTheFirstIsTakenAndNoneLeaks) {
  const Pair pair;
  const UniqueFd null = open_null();
  const auto before = open_descriptors();
  send_two(pair, null);
  {
    UniqueFd descriptor;
    EXPECT_EQ(pair.receive(descriptor), "x");
    EXPECT_TRUE(is_null_device(descriptor));
    EXPECT_EQ(open_descriptors(), before + 1);
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(SocketFd, NeitherWaitsNorRaisesASignal) {
  Pair pair;
  std::byte byte{};
  UniqueFd descriptor;
  EXPECT_EQ(receive_with_fd(pair.right.get(), {&byte, 1}, descriptor), -1);
  EXPECT_EQ(errno, EAGAIN);
  const std::string much(1 << 16, 'x');
  while (pair.send(much) > 0) {
  }
  EXPECT_EQ(errno, EAGAIN);
  pair.right.reset();
  EXPECT_EQ(pair.send("x"), -1);
  EXPECT_EQ(errno, EPIPE);
}

}  // namespace
}  // namespace vmsight::base_socket_fd_test
