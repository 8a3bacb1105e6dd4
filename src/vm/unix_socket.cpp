#include "vm/unix_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <cerrno>
#include <cstring>

namespace vmsight {
namespace {

/// sun_path holds 107 bytes; a longer path is reached through its directory.
Result<UniqueFd> fill_address(const std::string& path, sockaddr_un& address,
                              const std::string& action) {
  std::string short_path = path;
  UniqueFd directory;
  const auto slash = path.rfind('/');
  if (path.size() >= sizeof address.sun_path && slash != std::string::npos) {
    directory = UniqueFd(::open(path.substr(0, slash + 1).c_str(), O_PATH | O_CLOEXEC));
    if (!directory) return os_error(errno, action);
    short_path = fmt::format("/proc/self/fd/{}/{}", directory.get(), path.substr(slash + 1));
  }
  if (short_path.size() >= sizeof address.sun_path) return os_error(ENAMETOOLONG, action);
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, short_path.data(), short_path.size());
  return directory;
}

}  // namespace

Result<UniqueFd> connect_unix(const std::string& path,
                              std::chrono::steady_clock::time_point deadline, std::string_view whom,
                              std::string_view held_hint) {
  const std::string action = "connect to " + std::string(whom);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return os_error(errno, "make a socket");
  sockaddr_un address{};
  VMSIGHT_TRY(const UniqueFd directory, fill_address(path, address, action));
  // It only waits while the backlog is full of others, and QEMU's has one place.
  constexpr int pause_ms = 2;  // there is no event for a free place in a backlog
  while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
         0) {
    if (errno != EAGAIN && errno != EINTR) return os_error(errno, action);
    if (std::chrono::steady_clock::now() >= deadline) {
      return Error{.code = ErrorCode::timeout,
                   .message = action + ": the socket is held by another client",
                   .hint = std::string(held_hint)};
    }
    ::poll(nullptr, 0, pause_ms);
  }
  return socket;
}

}  // namespace vmsight
