// A client of QEMU's machine protocol over a unix socket.
// Format: QEMU's docs/interop/qmp-spec: one JSON object a line; greeting, qmp_capabilities, then
// commands. A socket serves one client at a time: a second one connects but is not greeted.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

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

  struct Command {
    std::string name;
    nlohmann::json arguments = nlohmann::json::object();
  };
  /// A command of the human monitor, whose value is text.
  static Command human(std::string command_line);

  /// Sends all commands at once and gives the value of each "return", in order. Events that
  /// arrive meanwhile are skipped. The error is of the first command that fails: unsupported with
  /// QEMU's words if it refuses; timeout; os if the connection broke.
  Result<std::vector<nlohmann::json>> execute_all(std::span<const Command> commands,
                                                  Milliseconds patience = command_time);
  Result<nlohmann::json> execute(Command command, Milliseconds patience = command_time);

  /// The process that listens on the socket, 0 if unknown.
  pid_t peer() const;

 private:
  using Clock = std::chrono::steady_clock;
  explicit QmpClient(UniqueFd socket) : socket_(std::move(socket)) {}
  std::string to_line(const Command& command);
  Result<nlohmann::json> answer_to(const Command& command, std::uint64_t id,
                                   Clock::time_point deadline);
  Result<nlohmann::json> receive(Clock::time_point deadline);
  Result<void> send(std::string_view text, Clock::time_point deadline);

  UniqueFd socket_;
  std::string received_;  // what follows the last line taken
  std::uint64_t last_id_ = 0;
};

/// Whether a client is connected to the listening socket at `path`, by the text of
/// /proc/PID/net/unix (see proc(5)). A relative path there matches the end of `path`.
bool has_client(std::string_view net_unix, std::string_view path);

/// The text that a command of the human monitor returned, with plain newlines.
Result<std::string> human_text(const nlohmann::json& answer);

}  // namespace vmsight
