#include "detect/datagram_socket.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <cerrno>
#include <cstring>

#include "base/socket_fd.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {

std::string DatagramSocket::action() const {
  return fmt::format("send to {}", escape_bytes(path_));
}

Result<void> DatagramSocket::connect() {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  if (path_.size() >= sizeof address.sun_path) {
    return Error{.code = ErrorCode::usage, .message = action() + ": the path is too long"};
  }
  std::memcpy(address.sun_path, path_.data(), path_.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return os_error(errno, action());
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return os_error(errno, action());
  }
  socket_ = std::move(fd);
  return {};
}

bool DatagramSocket::send_once(std::string_view bytes, int descriptor) const {
  return send_with_fd(socket_.get(), std::as_bytes(std::span(bytes)), descriptor) >= 0;
}

Result<void> DatagramSocket::send(std::string_view bytes, int descriptor) {
  if (send_once(bytes, descriptor)) return {};
  if (errno == EAGAIN || errno == EMSGSIZE) return os_error(errno, action());
  VMSIGHT_TRY_VOID(connect());
  if (send_once(bytes, descriptor)) return {};
  return os_error(errno, action());
}

}  // namespace vmsight::detect
