#include "host/unix_socket.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <sstream>
#include <vector>

#include "host/option_list.h"
#include "host/process.h"
#include "host/process_paths.h"

namespace vmsight {
namespace {

/// The path leads through a descriptor: sun_path holds 107 bytes, and links in another process's
/// root are to be followed there.
sockaddr_un address_of(const UniqueFd& socket_file) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = fmt::format("/proc/self/fd/{}", socket_file.get());
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

/// What the listener at the other end is bound to, as it said when it did so.
std::string name_of_peer(int socket) {
  sockaddr_un address{};
  socklen_t size = sizeof address;
  constexpr socklen_t before_path = offsetof(sockaddr_un, sun_path);
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      size <= before_path) {
    return "";
  }
  return {address.sun_path, ::strnlen(address.sun_path, size - before_path)};
}

/// The inode of the listening socket of this name that a line of /proc/PID/net/unix shows (proc(5)).
std::optional<std::uint64_t> listener_inode(const std::string& line, const std::string& name) {
  constexpr std::string_view listens = "00010000";  // __SO_ACCEPTCON
  std::istringstream words(line);
  std::string number, references, protocol, flags, type, state, inode, path;
  words >> number >> references >> protocol >> flags >> type >> state >> inode;
  std::getline(words.ignore(1), path);
  if (flags != listens || path != name) return std::nullopt;
  return parse_number(inode);
}

/// Whether one of the process's own descriptors is a listening socket of this name.
bool holds_listener(pid_t pid, const std::string& name) {
  const auto net_unix = read_proc_file(pid, "net/unix");
  if (!net_unix || name.empty()) return false;
  std::vector<std::string> links;
  std::istringstream lines(*net_unix);
  for (std::string line; std::getline(lines, line);) {
    if (const auto inode = listener_inode(line, name)) {
      links.push_back(fmt::format("socket:[{}]", *inode));
    }
  }
  const auto is_one = [&](std::string_view link) {
    return std::find(links.begin(), links.end(), link) != links.end();
  };
  return has_descriptor(pid, is_one).value_or(false);
}

}  // namespace

Result<UniqueFd> connect_unix(const std::string& path,
                              std::chrono::steady_clock::time_point deadline, std::string_view whom,
                              std::string_view held_hint) {
  const std::string action = "connect to " + std::string(whom);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return os_error(errno, "make a socket");
  const auto file = open_process_path(path);
  if (!file) return os_error(file.error().os_errno, action);
  const sockaddr_un address = address_of(*file);
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

Result<void> check_listener(int socket, pid_t pid, std::string_view whom) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return os_error(errno, fmt::format("connect to {}", whom));
  }
  if (peer.pid == pid) return {};
  const auto owner = process_owner(pid);
  const bool trusted = peer.uid == 0 || (owner && peer.uid == *owner);
  if (trusted && holds_listener(pid, name_of_peer(socket))) return {};
  return Error{.code = ErrorCode::permission,
               .message = fmt::format("connect to {}: process {} listens there, not QEMU ({})",
                                      whom, peer.pid, pid),
               .hint = "nothing was sent; give each QEMU a socket of its own"};
}

}  // namespace vmsight
