// Alarms to Prometheus' Alertmanager, by HTTP.
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "base/utf8.h"
#include "detect/background_sink.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;

std::string lower_case(std::string_view text) {
  std::string made(text);
  for (char& c : made) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return made;
}

Json alert_of(const Alarm& alarm, const std::string& hostname) {
  std::string tags = fmt::format("{}", fmt::join(alarm.tags, " "));
  return {{"labels",
           {{"alertname", for_json(alarm.rule)},
            {"severity", lower_case(to_string(alarm.priority))},
            {"vm", for_json(alarm.vm)},
            {"instance", for_json(hostname)},
            {"source", "vmsight"}}},
          {"annotations",
           {{"summary", for_json(alarm.output)},
            {"tags", for_json(tags)},
            {"count", std::to_string(alarm.count)},
            {"time", rfc3339(alarm.time_ns)}}},
          {"startsAt", rfc3339(alarm.first_ns)}};
}

struct Target {
  sockaddr_storage address{};
  socklen_t length = 0;
};

/// A connection that ends with its time.
class Connection {
 public:
  Connection(std::string action, Clock::time_point deadline, int stop)
      : action_(std::move(action)), deadline_(deadline), stop_(stop) {}

  Result<void> connect(const Target& target) {
    socket_ =
        UniqueFd(::socket(target.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket_) return os_error(errno, action_);
    const auto* address = reinterpret_cast<const sockaddr*>(&target.address);
    if (::connect(socket_.get(), address, target.length) == 0) return {};
    if (errno != EINPROGRESS) return os_error(errno, action_);
    VMSIGHT_TRY_VOID(wait(POLLOUT));
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    return error == 0 ? Result<void>() : os_error(error, action_);
  }

  Result<void> send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        bytes.remove_prefix(static_cast<std::size_t>(sent));
      } else if (sent < 0 && errno == EAGAIN) {
        VMSIGHT_TRY_VOID(wait(POLLOUT));
      } else if (sent < 0 && errno != EINTR) {
        return os_error(errno, action_);
      }
    }
    return {};
  }

  /// All that comes until the other side ends it, or `most` bytes of it.
  Result<std::string> receive(std::size_t most) {
    std::string answer;
    std::array<char, 4096> buffer;
    while (answer.size() < most) {
      const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
      if (got > 0) {
        answer.append(buffer.data(), static_cast<std::size_t>(got));
      } else if (got == 0) {
        return answer;
      } else if (errno == EAGAIN) {
        VMSIGHT_TRY_VOID(wait(POLLIN));
      } else if (errno != EINTR) {
        return os_error(errno, action_);
      }
    }
    return answer;
  }

 private:
  Result<void> wait(short events) {
    while (true) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::now());
      pollfd both[] = {{.fd = socket_.get(), .events = events, .revents = 0},
                       {.fd = stop_, .events = POLLIN, .revents = 0}};
      const int ready =
          ::poll(both, std::size(both), std::max<int>(0, static_cast<int>(left.count())));
      if (ready < 0 && errno == EINTR) continue;
      if (ready > 0 && both[0].revents != 0) return {};
      return Error{.code = ErrorCode::timeout, .message = action_ + ": no answer in time"};
    }
  }

  std::string action_;
  Clock::time_point deadline_;
  int stop_;
  UniqueFd socket_;
};

class Alertmanager {
 public:
  Alertmanager(AlertmanagerOptions options, std::vector<Target> targets)
      : options_(std::move(options)), targets_(std::move(targets)) {
    name_ = "post to " + escape_bytes(options_.address);
  }
  const std::string& name() const { return name_; }

  Result<void> post(std::span<const Alarm> alarms, int stop) const {
    const std::string request = request_of(alarms);
    Result<void> done = Error{.code = ErrorCode::not_found, .message = name_ + ": no address"};
    const auto deadline = Clock::now() + options_.limit;
    for (const Target& target : targets_) {
      Connection connection(name_, deadline, stop);
      done = connection.connect(target);
      if (done) return exchange(connection, request);
    }
    return done;
  }

 private:
  Result<void> exchange(Connection& connection, const std::string& request) const {
    constexpr std::size_t longest_answer = 16 * 1024;
    VMSIGHT_TRY_VOID(connection.send(request));
    VMSIGHT_TRY(const std::string answer, connection.receive(longest_answer));
    // "HTTP/1.1 200 OK"
    const std::string_view line = std::string_view(answer).substr(0, answer.find('\r'));
    const bool is_http = line.starts_with("HTTP/1.") && line.size() >= 12;
    if (is_http && line[9] == '2') return {};
    return Error{
        .code = ErrorCode::bad_data,
        .message = fmt::format("{}: it answered \"{}\"", name_, escape_bytes(line.substr(0, 80))),
        .hint = reason_of(answer)};
  }

  static std::string reason_of(const std::string& answer) {
    const std::size_t body = answer.find("\r\n\r\n");
    return body == answer.npos ? "" : escape_bytes(answer.substr(body + 4, 200));
  }

  std::string request_of(std::span<const Alarm> alarms) const {
    Json alerts = Json::array();
    for (const Alarm& alarm : alarms) alerts.push_back(alert_of(alarm, options_.hostname));
    const std::string body = alerts.dump(-1, ' ', true, Json::error_handler_t::replace);
    return fmt::format(
        "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: vmsight\r\nContent-Type: application/json\r\n"
        "Content-Length: {}\r\nConnection: close\r\n\r\n{}",
        options_.path, options_.address, body.size(), body);
  }

  AlertmanagerOptions options_;
  std::vector<Target> targets_;
  std::string name_;
};

struct HostAndPort {
  std::string host, port;
};
/// Of HOST:PORT or [IPV6]:PORT.
std::optional<HostAndPort> split_address(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == text.npos || escape_bytes(text) != text) return std::nullopt;
  std::string_view host = text.substr(0, colon), port = text.substr(colon + 1);
  const auto number = parse_whole<std::uint16_t>(port);
  if (host.starts_with('[') && host.ends_with(']') && host.size() > 2) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find_first_of(":[]/@ ") != host.npos) {
    return std::nullopt;
  }
  if (host.empty() || !number || *number == 0) return std::nullopt;
  return HostAndPort{std::string(host), std::string(port)};
}

Result<std::vector<Target>> look_up(const AlertmanagerOptions& options) {
  const auto parts = split_address(options.address);
  if (!parts) {
    return Error{.code = ErrorCode::usage,
                 .message = fmt::format("\"{}\" is no address of an Alertmanager",
                                        escape_bytes(options.address)),
                 .hint = "write HOST:PORT or [IPV6]:PORT"};
  }
  addrinfo wanted{}, *found = nullptr;
  wanted.ai_socktype = SOCK_STREAM;
  const int failed = ::getaddrinfo(parts->host.c_str(), parts->port.c_str(), &wanted, &found);
  if (failed != 0) {
    return Error{.code = ErrorCode::not_found,
                 .message = fmt::format("look up {}: {}", parts->host, ::gai_strerror(failed))};
  }
  std::vector<Target> targets;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    Target target{.length = one->ai_addrlen};
    std::memcpy(&target.address, one->ai_addr, one->ai_addrlen);
    targets.push_back(target);
  }
  ::freeaddrinfo(found);
  return targets;
}

bool is_path(std::string_view path) {
  return path.starts_with('/') && escape_bytes(path) == path && path.find(' ') == path.npos;
}

}  // namespace

Result<std::unique_ptr<AlarmSink>> open_alertmanager_sink(AlertmanagerOptions options) {
  constexpr std::size_t at_once = 64;  // alarms of a request
  if (!is_path(options.path)) {
    return Error{.code = ErrorCode::usage, .message = "the path of an Alertmanager begins with /"};
  }
  VMSIGHT_TRY(auto targets, look_up(options));
  const auto flush_limit = 2 * options.limit + std::chrono::seconds(1);
  const std::size_t waiting = options.waiting;
  const auto to = std::make_shared<const Alertmanager>(std::move(options), std::move(targets));
  return make_background_sink(
      {.name = to->name(),
       .threads = 1,
       .waiting = waiting,
       .batch = at_once,
       .flush_limit = flush_limit},
      [to](std::span<const Alarm> alarms, int stop) { return to->post(alarms, stop); });
}

}  // namespace vmsight::detect
