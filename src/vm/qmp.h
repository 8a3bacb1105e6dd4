// A client of QEMU's machine protocol over a unix socket.
// Format: QEMU's docs/interop/qmp-spec: one JSON object a line; greeting, qmp_capabilities, then
// commands. A socket serves one client at a time: a second one connects but is not greeted.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <sys/types.h>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

class QmpClient {
 public:
  using Milliseconds = std::chrono::milliseconds;
  static constexpr Milliseconds greeting_time{1000};
  static constexpr Milliseconds command_time{5000};
  /// For a socket that seems to be held; it may have been let go of just now.
  static constexpr Milliseconds held_time{200};

  /// Connects and negotiates. timeout if nobody greets us: the socket is held by another client,
  /// or QEMU is stopped. The connection is given back when the client is destroyed.
  static Result<QmpClient> connect(const std::string& path, Milliseconds patience = greeting_time);

  /// Speaks on a connected stream socket; the other side greets first. For tests.
  static Result<QmpClient> negotiate(UniqueFd socket, Milliseconds patience = greeting_time);

  /// The value of "return". Events that arrive meanwhile are skipped. unsupported with QEMU's
  /// words if it refuses; timeout; os if the connection broke.
  Result<nlohmann::json> execute(std::string_view command,
                                 const nlohmann::json& arguments = nlohmann::json::object(),
                                 Milliseconds patience = command_time);

  /// A command of the human monitor; its text with plain newlines.
  Result<std::string> human(std::string_view command_line, Milliseconds patience = command_time);

  /// The process that listens on the socket, 0 if unknown.
  pid_t peer() const;

 private:
  using Clock = std::chrono::steady_clock;
  explicit QmpClient(UniqueFd socket) : socket_(std::move(socket)) {}
  Result<nlohmann::json> receive(Clock::time_point deadline);
  Result<void> send(const nlohmann::json& message, Clock::time_point deadline);

  UniqueFd socket_;
  std::string received_;  // what follows the last line taken
  std::uint64_t last_id_ = 0;
};

/// Whether a client is connected to the listening socket at `path`, by the text of
/// /proc/PID/net/unix (see proc(5)). A relative path there matches the end of `path`.
bool has_client(std::string_view net_unix, std::string_view path);

}  // namespace vmsight
