#include "guard/qmp_relay.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <span>

#include "base/json_text.h"
#include "base/socket_fd.h"

namespace vmsight {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::size_t max_command = 1u << 20;   // of the owner's
constexpr std::size_t max_answer = 64u << 20;   // far above any
constexpr std::size_t max_waiting = 64u << 20;  // for an owner that does not read
constexpr std::size_t max_event = 4096;         // of those that are looked at

bool again(int error) { return error == EAGAIN || error == EINTR; }

Error connection_lost(int error) { return os_error(error, "speak to QEMU's monitor"); }

/// Takes whole lines, with their ends, out of `text`.
template <typename Take>
void take_lines(std::string& text, Take take) {
  std::size_t start = 0;
  for (auto end = text.find('\n'); end != text.npos; end = text.find('\n', start)) {
    take(text.substr(start, end + 1 - start));
    start = end + 1;
  }
  text.erase(0, start);
}

json parse(const std::string& line) { return json::parse(line, nullptr, false); }

}  // namespace

void QmpRelay::watch(std::vector<pollfd>& events) const {
  if (qemu_) {
    const int out = to_qemu_.empty() ? 0 : POLLOUT;
    events.push_back({.fd = qemu_.get(), .events = static_cast<short>(POLLIN | out), .revents = 0});
  }
  if (owner_) {
    const int out = to_owner_.empty() ? 0 : POLLOUT;
    events.push_back(
        {.fd = owner_.get(), .events = static_cast<short>(POLLIN | out), .revents = 0});
  }
}

Result<void> QmpRelay::pump() {
  if (!qemu_) return {};
  read_owner();
  VMSIGHT_TRY_VOID(write_qemu());
  VMSIGHT_TRY_VOID(read_qemu());
  write_owner();
  return {};
}

Result<void> QmpRelay::read_qemu() {
  std::array<char, 65536> chunk;
  while (true) {
    const ssize_t got = ::recv(qemu_.get(), chunk.data(), chunk.size(), MSG_DONTWAIT);
    if (got < 0 && again(errno)) break;
    if (got <= 0) return connection_lost(got < 0 ? errno : ECONNRESET);
    from_qemu_.append(chunk.data(), static_cast<std::size_t>(got));
    if (from_qemu_.size() > max_answer) return connection_lost(EMSGSIZE);
    take_lines(from_qemu_, [this](const std::string& line) { take_line_of_qemu(line); });
  }
  return {};
}

void QmpRelay::take_line_of_qemu(const std::string& line) {
  if (!awaited_.empty() && line.find(awaited_) != line.npos) {
    json answer = parse(line);
    if (answer.is_object() && answer.value("id", json()) == awaited_) {
      answer_ = std::move(answer);
      return;
    }
  }
  if (line.size() <= max_event && line.find("\"event\"") != line.npos) {
    const json event = parse(line);
    const json name = event.is_object() ? event.value("event", json()) : json();
    if (name.is_string() && on_event_) on_event_(name.get_ref<const std::string&>());
  }
  if (!owner_) return;
  if (to_owner_.size() + line.size() > max_waiting) return cut_off();
  to_owner_ += line;
}

void QmpRelay::read_owner() {
  std::array<char, 65536> chunk;
  while (owner_) {
    const ssize_t got = receive_with_fd(owner_.get(), std::as_writable_bytes(std::span(chunk)),
                                        from_owner_descriptor_);
    if (got < 0 && again(errno)) return;
    if (got <= 0) return cut_off();
    from_owner_.append(chunk.data(), static_cast<std::size_t>(got));
    if (from_owner_.size() > max_command) return cut_off();
    take_lines(from_owner_, [this](std::string line) { take_line_of_owner(std::move(line)); });
  }
}

void QmpRelay::take_line_of_owner(std::string line) {
  if (!owner_) return;
  const json command = parse(line);
  if (!command.is_object() || !allows_ || !allows_(command)) return cut_off();
  to_qemu_.push_back(
      {.line = std::move(line), .descriptor = std::move(from_owner_descriptor_), .sent = 0});
  from_owner_descriptor_ = UniqueFd();
}

Result<void> QmpRelay::write_qemu() {
  while (!to_qemu_.empty()) {
    Outgoing& next = to_qemu_.front();
    const ssize_t sent = send_with_fd(
        qemu_.get(), std::as_bytes(std::span(next.line).subspan(next.sent)), next.descriptor.get());
    if (sent < 0 && again(errno)) return {};
    if (sent < 0) return connection_lost(errno);
    next.descriptor.reset();  // it went with the first bytes
    next.sent += static_cast<std::size_t>(sent);
    if (next.sent == next.line.size()) to_qemu_.pop_front();
  }
  return {};
}

void QmpRelay::write_owner() {
  while (owner_ && !to_owner_.empty()) {
    const ssize_t sent = send_with_fd(owner_.get(), std::as_bytes(std::span(to_owner_)), -1);
    if (sent < 0 && again(errno)) return;
    if (sent < 0) return cut_off();
    to_owner_.erase(0, static_cast<std::size_t>(sent));
  }
}

void QmpRelay::cut_off() {
  owner_.reset();
  to_owner_.clear();
  from_owner_.clear();
  from_owner_descriptor_.reset();
}

Result<json> QmpRelay::execute(const QmpClient::Command& command,
                               std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  awaited_ = fmt::format("guard-{}", ++last_id_);
  answer_ = json();
  json message = {{"execute", command.name}, {"id", awaited_}};
  if (!command.arguments.empty()) message["arguments"] = command.arguments;
  to_qemu_.push_back({.line = message.dump() + "\n", .descriptor = {}, .sent = 0});
  while (answer_.is_null()) {
    VMSIGHT_TRY_VOID(write_qemu());
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd event{.fd = qemu_.get(),
                 .events = static_cast<short>(POLLIN | (to_qemu_.empty() ? 0 : POLLOUT)),
                 .revents = 0};
    const int ready = ::poll(&event, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (ready == 0) {
      awaited_.clear();
      return Error{.code = ErrorCode::timeout,
                   .message = fmt::format("QMP {}: no answer in time", command.name)};
    }
    VMSIGHT_TRY_VOID(read_qemu());
  }
  awaited_.clear();
  write_owner();
  return returned_value("QMP", command.name, std::move(answer_));
}

Result<QmpClient> QmpRelay::take() {
  cut_off();
  // Half a line would spoil the next; lines that were not begun are not sent.
  if (!to_qemu_.empty() && to_qemu_.front().sent == 0) to_qemu_.clear();
  if (to_qemu_.size() > 1) to_qemu_.resize(1);
  const auto deadline = Clock::now() + std::chrono::seconds(2);
  while (!to_qemu_.empty() && Clock::now() < deadline) {
    pollfd event{.fd = qemu_.get(), .events = POLLOUT, .revents = 0};
    ::poll(&event, 1, 100);
    VMSIGHT_TRY_VOID(write_qemu());
  }
  return QmpClient::adopt(std::move(qemu_), std::exchange(from_qemu_, {}));
}

}  // namespace vmsight
