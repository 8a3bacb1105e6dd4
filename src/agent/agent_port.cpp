#include "agent/agent_port.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <algorithm>
#include <cerrno>

#include "base/json_text.h"
#include "base/wait.h"
#include "host/command_line.h"
#include "host/option_list.h"
#include "host/process.h"
#include "host/process_paths.h"
#include "host/unix_socket.h"
#include "qemu/monitor_session.h"

namespace vmsight {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds connect_time{1000};
constexpr std::string_view held_hint =
    "close the other client (for a libvirt domain it may be libvirtd)";

Error unusable(std::string_view name, std::string_view why, std::string hint) {
  return {.code = ErrorCode::unsupported,
          .message = fmt::format("connect to the guest's port {}: {}", name, why),
          .hint = std::move(hint)};
}

std::string port_hint(std::string_view name) {
  return fmt::format(
      "start QEMU with -device virtio-serial -chardev "
      "socket,id=agent,path=PATH,server=on,wait=off "
      "-device virtserialport,chardev=agent,name={}",
      name);
}

/// What a socket among QEMU's descriptors listens on.
std::string path_of_descriptor(pid_t pid, std::uint64_t fd) {
  constexpr std::string_view prefix = "socket:[";
  const auto link = read_proc_link(pid, fmt::format("fd/{}", fd));
  if (!link || !link->starts_with(prefix) || !link->ends_with(']')) return "";
  const auto inode = parse_number(link->substr(prefix.size(), link->size() - prefix.size() - 1));
  const auto sockets = read_proc_file(pid, "net/unix");
  return inode && sockets ? unix_socket_path(*sockets, *inode) : "";
}

Result<std::string> path_of_port(const VmInfo& info, const GuestPort& port) {
  if (!port.path.empty()) return path_of_process(info.pid, port.path);
  if (port.fd) {
    if (std::string path = path_of_descriptor(info.pid, *port.fd); !path.empty()) {
      return path_of_process(info.pid, path);
    }
  }
  return unusable(port.name,
                  fmt::format("its chardev is no listening unix socket but \"{}\"", port.backend),
                  port_hint(port.name));
}

/// "disconnected:unix:/run/agent,server=on"
std::string path_in_filename(const std::string& filename) {
  constexpr std::string_view prefix = "unix:";
  const auto start = filename.find(prefix);
  const auto end = filename.rfind(",server");
  if (start == std::string::npos || end == std::string::npos) return "";
  const auto from = start + prefix.size();
  return from < end ? filename.substr(from, end - from) : "";
}

/// Where QEMU says that the chardev `label` is; "" if it does not.
Result<std::string> chardev_path(MonitorSession& monitor, const std::string& label) {
  VMSIGHT_TRY(const json chardevs, monitor.execute({"query-chardev"}));
  for (const json& chardev : chardevs) {
    if (text_of(chardev, "label") == label) return path_in_filename(text_of(chardev, "filename"));
  }
  return std::string();
}

/// A port that was plugged in while QEMU ran, or by a configuration file; "" if there is none.
Result<std::string> ask_for_port(MonitorSession& monitor, std::string_view name) {
  for (const std::string folder : {"/machine/peripheral", "/machine/peripheral-anon"}) {
    VMSIGHT_TRY(const json devices, monitor.execute({"qom-list", {{"path", folder}}}));
    for (const json& device : devices) {
      if (text_of(device, "type") != "child<virtserialport>") continue;
      const std::string path = folder + "/" + text_of(device, "name");
      const auto ask = [&](const char* property) {
        return monitor.execute({"qom-get", {{"path", path}, {"property", property}}});
      };
      const auto its_name = ask("name"), chardev = ask("chardev");
      if (!its_name || !chardev || *its_name != name || !chardev->is_string()) continue;
      return chardev_path(monitor, chardev->get<std::string>());
    }
  }
  return std::string();
}

Result<std::string> find_port(const VmInfo& info, std::string_view name) {
  VMSIGHT_TRY(const CommandLine line, parse_command_line(info.arguments));
  const auto port = std::find_if(line.ports.begin(), line.ports.end(),
                                 [&](const GuestPort& p) { return p.name == name; });
  if (port != line.ports.end()) return path_of_port(info, *port);
  if (const auto monitor = MonitorSession::of(info)) {
    const auto path = ask_for_port(**monitor, name);
    if (path && !path->empty()) return path_of_process(info.pid, *path);
  }
  return unusable(name, "the VM has no such port", port_hint(name));
}

}  // namespace

std::string unix_socket_path(std::string_view net_unix, std::uint64_t inode) {
  // Num RefCount Protocol Flags Type St Inode Path
  constexpr std::size_t inode_column = 6;
  while (!net_unix.empty()) {
    const auto end = std::min(net_unix.find('\n'), net_unix.size());
    std::string_view line = net_unix.substr(0, end);
    net_unix.remove_prefix(std::min(end + 1, net_unix.size()));
    std::string_view word;
    for (std::size_t column = 0; column <= inode_column; ++column) {
      line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
      word = line.substr(0, line.find(' '));
      line.remove_prefix(word.size());
    }
    if (parse_number(word) == inode)
      return std::string(line.substr(std::min<std::size_t>(1, line.size())));
  }
  return "";
}

AgentPort::AgentPort(UniqueFd socket) : socket_(std::move(socket)) {
  const int flags = ::fcntl(socket_.get(), F_GETFL);
  ::fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK);
}

Result<AgentPort> AgentPort::connect(const VmInfo& info, std::string_view name) {
  VMSIGHT_TRY(const std::string path, find_port(info, name));
  if (is_stopped(info.pid)) {
    return unusable(name, "the QEMU process is stopped", fmt::format("kill -CONT {}", info.pid));
  }
  const auto net_unix = read_proc_file(info.pid, "net/unix");
  const bool held = net_unix && has_client(*net_unix, path_inside(path));
  const std::string whom = fmt::format("the guest's port {}", name);
  VMSIGHT_TRY(UniqueFd socket, connect_unix(path, Clock::now() + connect_time, whom, held_hint));
  VMSIGHT_TRY_VOID(check_listener(socket.get(), info.pid, whom));
  AgentPort port(std::move(socket));
  port.held_ = held;
  return port;
}

Error AgentPort::silence(std::string_view whom, std::string hint) const {
  if (held_) {
    return {.code = ErrorCode::timeout,
            .message = fmt::format("wait for {}: its port is held by another client", whom),
            .hint = std::string(held_hint)};
  }
  return {.code = ErrorCode::timeout,
          .message = fmt::format("wait for {}: no answer in time", whom),
          .hint = std::move(hint)};
}

Result<void> AgentPort::exchange(std::string_view out, const Take& take, Milliseconds patience,
                                 std::size_t most) {
  const auto last = Clock::now() + most_patience * patience;
  while (true) {
    VMSIGHT_TRY(const Taken taken, take(received_));
    VMSIGHT_CHECK(taken.used <= received_.size());
    received_.erase(0, taken.used);
    if (taken.done) return {};
    if (received_.size() >= most) {
      return Error{.code = ErrorCode::bad_data, .message = "read from the agent: endless answer"};
    }
    const short events = out.empty() ? POLLIN : POLLIN | POLLOUT;
    const auto now = Clock::now();
    if (now >= last) {  // there may always be something to read
      return Error{.code = ErrorCode::timeout, .message = "wait for the agent: no answer in time"};
    }
    const auto deadline = std::min(now + patience, last);
    VMSIGHT_TRY_VOID(wait_for(socket_.get(), events, deadline, "the agent"));
    VMSIGHT_TRY_VOID(send(out));
    VMSIGHT_TRY_VOID(receive(most));
  }
}

Result<void> AgentPort::receive(std::size_t most) {
  const std::size_t before = received_.size();
  received_.resize(std::min(most, before + chunk));
  const ssize_t got =
      ::recv(socket_.get(), received_.data() + before, received_.size() - before, 0);
  const int err = errno;
  received_.resize(before + (got > 0 ? static_cast<std::size_t>(got) : 0));
  if (got > 0) held_ = false;  // who was there before has gone
  if (got > 0 || (got < 0 && (err == EAGAIN || err == EINTR))) return {};
  return os_error(got < 0 ? err : ECONNRESET, "read from the agent");
}

Result<void> AgentPort::send(std::string_view& out) {
  if (out.empty()) return {};
  const ssize_t sent = ::send(socket_.get(), out.data(), out.size(), MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) return os_error(errno, "write to the agent");
  if (sent > 0) out.remove_prefix(static_cast<std::size_t>(sent));
  return {};
}

}  // namespace vmsight
