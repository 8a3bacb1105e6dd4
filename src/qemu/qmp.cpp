#include "qemu/qmp.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <algorithm>
#include <cerrno>

#include "base/json_text.h"
#include "base/socket_fd.h"
#include "base/wait.h"
#include "host/unix_socket.h"

namespace vmsight {
namespace {

using nlohmann::json;

constexpr std::string_view held_hint = "close the other client, or give QEMU a second -qmp socket";
constexpr std::size_t max_line = 64u << 20;  // far above any answer; ends a flood
constexpr std::size_t max_events = 256;      // kept for somebody who waits for one

}  // namespace

Result<QmpClient> QmpClient::connect(const std::string& path, pid_t qemu, Milliseconds patience) {
  VMSIGHT_TRY(UniqueFd socket, connect_unix(path, Clock::now() + patience, "QMP", held_hint));
  VMSIGHT_TRY_VOID(check_listener(socket.get(), qemu, "QMP"));
  return negotiate(std::move(socket), patience);
}

Result<QmpClient> QmpClient::negotiate(UniqueFd socket, Milliseconds patience) {
  QmpClient client(std::move(socket));
  auto greeting = client.receive(Clock::now() + patience);
  if (!greeting && greeting.error().code == ErrorCode::timeout) {
    return Error{.code = ErrorCode::timeout,
                 .message = "wait for QMP greeting: the socket is held by another client",
                 .hint = std::string(held_hint)};
  }
  if (!greeting) return std::move(greeting).error();
  if (!greeting->contains("QMP")) {
    return Error{.code = ErrorCode::unsupported, .message = "not a QMP socket"};
  }
  // Not waited for: if it is refused, so is every command after it, with a reason.
  VMSIGHT_TRY_VOID(client.send(client.to_line({"qmp_capabilities"}), Clock::now() + patience));
  return client;
}

QmpClient QmpClient::adopt(UniqueFd socket, std::string received) {
  constexpr std::uint64_t above = 1ULL << 32;  // answers to another's commands may still come
  QmpClient client(std::move(socket));
  client.received_ = std::move(received);
  client.last_id_ = above;
  return client;
}

QmpClient::Command QmpClient::human(std::string command_line) {
  return {"human-monitor-command", {{"command-line", std::move(command_line)}}};
}

Result<std::vector<json>> QmpClient::execute_all(std::span<const Command> commands,
                                                 Milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  std::uint64_t id = last_id_ + 1;
  std::string lines;
  int descriptor = -1;
  for (const Command& command : commands) {
    lines += to_line(command);
    if (command.descriptor >= 0) descriptor = command.descriptor;
  }
  VMSIGHT_CHECK(descriptor < 0 || commands.size() == 1);
  VMSIGHT_TRY_VOID(send(lines, deadline, descriptor));
  std::vector<json> answers;
  for (const Command& command : commands) {
    VMSIGHT_TRY(json answer, answer_to(command, id++, deadline));
    answers.push_back(std::move(answer));
  }
  return answers;
}

Result<json> QmpClient::execute(Command command, Milliseconds patience) {
  VMSIGHT_TRY(auto answers, execute_all(std::span(&command, 1), patience));
  return std::move(answers.front());
}

std::string QmpClient::to_line(const Command& command) {
  json message = {{"execute", command.name}, {"id", ++last_id_}};
  if (!command.arguments.empty()) message["arguments"] = command.arguments;
  return message.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<json> QmpClient::answer_to(const Command& command, std::uint64_t id,
                                  Clock::time_point deadline) {
  for (std::size_t unwanted = 0;; ++unwanted) {
    VMSIGHT_TRY_VOID(check_flood(deadline, unwanted));
    VMSIGHT_TRY(json answer, receive(deadline));
    keep_event(answer);
    if (answer.value("id", json()) != id) continue;  // or an answer that nobody waits for any more
    return returned_value("QMP", command.name, std::move(answer));
  }
}

/// What had come before the deadline is looked at; one that never stops talking is not waited for.
Result<void> QmpClient::check_flood(Clock::time_point deadline, std::size_t unwanted) const {
  if (unwanted < max_events || Clock::now() < deadline) return {};
  return Error{.code = ErrorCode::timeout, .message = "wait for QMP: no answer in time"};
}

/// {"event": "STOP", "data": {}, "timestamp": {"seconds": 1, "microseconds": 2}}
void QmpClient::keep_event(const json& message) {
  const auto name = message.find("event");
  if (name == message.end() || !name->is_string()) return;
  Event event{.name = name->get<std::string>(), .data = message.value("data", json())};
  const json time = message.value("timestamp", json());
  if (time.is_object()) {
    const json seconds = time.value("seconds", json()), rest = time.value("microseconds", json());
    if (seconds.is_number_unsigned() && rest.is_number_unsigned()) {
      event.time_us = seconds.get<std::uint64_t>() * 1'000'000 + rest.get<std::uint64_t>();
    }
  }
  if (event.name == "RESET") ++resets_;
  if (events_.size() >= max_events) events_.pop_front();
  events_.push_back(std::move(event));
}

std::vector<QmpClient::Event> QmpClient::take_events() {
  std::vector<Event> taken(std::make_move_iterator(events_.begin()),
                           std::make_move_iterator(events_.end()));
  events_.clear();
  return taken;
}

Result<QmpClient::Event> QmpClient::wait_event(std::string_view name, Milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  for (std::size_t unwanted = 0;; ++unwanted) {
    VMSIGHT_TRY_VOID(check_flood(deadline, unwanted));
    const auto found = std::find_if(events_.begin(), events_.end(),
                                    [&](const Event& event) { return event.name == name; });
    if (found != events_.end()) {
      Event event = std::move(*found);
      events_.erase(found);
      return event;
    }
    VMSIGHT_TRY(const json message, receive(deadline));
    keep_event(message);
  }
}

Result<std::uint64_t> QmpClient::resets() {
  const auto deadline = Clock::now();
  for (std::size_t read = 0;; ++read) {
    VMSIGHT_TRY_VOID(check_flood(deadline, read));
    const auto message = receive(deadline);
    if (!message && message.error().code == ErrorCode::timeout) return resets_;
    if (!message) return message.error();
    keep_event(*message);
  }
}

/// The line of received_ that ends at `end`, as JSON.
Result<json> QmpClient::take_line(std::size_t end) {
  json message = json::parse(received_.begin(), received_.begin() + static_cast<long>(end), nullptr,
                             /*allow_exceptions=*/false);
  received_.erase(0, end + 1);
  if (message.is_object()) return message;
  return Error{.code = ErrorCode::bad_data, .message = "read QMP: not a JSON object"};
}

Error QmpClient::broke(int err, const char* action) {
  broken_ = true;
  return os_error(err, action);
}

Result<json> QmpClient::receive(Clock::time_point deadline) {
  std::size_t searched = 0;
  while (true) {
    const auto end = received_.find('\n', searched);
    if (end != std::string::npos) return take_line(end);
    searched = received_.size();
    if (searched > max_line) {
      return Error{.code = ErrorCode::bad_data, .message = "read QMP: endless line"};
    }
    if (!socket_) return broke(ENOTCONN, "read QMP");
    VMSIGHT_TRY_VOID(wait_for(socket_.get(), POLLIN, deadline, "QMP"));
    char chunk[65536];
    const ssize_t got = ::recv(socket_.get(), chunk, sizeof chunk, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got <= 0) return broke(got < 0 ? errno : ECONNRESET, "read QMP");
    received_.append(chunk, static_cast<std::size_t>(got));
  }
}

Result<void> QmpClient::send(std::string_view rest, Clock::time_point deadline, int descriptor) {
  while (!rest.empty()) {
    if (!socket_) return broke(ENOTCONN, "write QMP");
    VMSIGHT_TRY_VOID(wait_for(socket_.get(), POLLOUT, deadline, "QMP"));
    const ssize_t sent = send_with_fd(socket_.get(), std::as_bytes(std::span(rest)), descriptor);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (sent < 0) return broke(errno, "write QMP");
    rest.remove_prefix(static_cast<std::size_t>(sent));
    descriptor = -1;  // it went with the first bytes
  }
  return {};
}

Result<std::string> human_text(const json& answer) {
  if (!answer.is_string()) {
    return Error{.code = ErrorCode::bad_data, .message = "QMP human-monitor-command: no text"};
  }
  std::string text = answer.get<std::string>();
  std::erase(text, '\r');
  return text;
}

bool has_client(std::string_view net_unix, std::string_view path) {
  // Num RefCount Protocol Flags Type St Inode Path; St 03 is connected.
  constexpr std::string_view connected = " 0001 03 ";
  while (!net_unix.empty()) {
    const auto end = std::min(net_unix.find('\n'), net_unix.size());
    const std::string_view line = net_unix.substr(0, end);
    net_unix.remove_prefix(std::min(end + 1, net_unix.size()));
    const auto at = line.find(connected);
    if (at == std::string_view::npos) continue;
    const std::string_view rest = line.substr(at + connected.size());
    const auto inode = rest.find_first_not_of(' ');
    const auto space = rest.find(' ', inode);  // of inode npos: npos
    if (space == std::string_view::npos) continue;
    const std::string_view name = rest.substr(space + 1);
    if (path == name) return true;
    const bool relative = !name.empty() && name.front() != '/' && name.front() != '@';
    if (relative && path.ends_with(name) && path[path.size() - name.size() - 1] == '/') return true;
  }
  return false;
}

}  // namespace vmsight
