// A client of QEMU's machine protocol over a unix socket.
// Format: QEMU's docs/interop/qmp-spec: one JSON object a line; greeting, qmp_capabilities, then
// commands. A socket serves one client at a time: a second one connects but is not greeted.
#pragma once

#include <sys/types.h>
#include <chrono>
#include <deque>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

class QmpClient {
 public:
  using Milliseconds = std::chrono::milliseconds;
  static constexpr Milliseconds greeting_time{3000};
  static constexpr Milliseconds command_time{10'000};
  /// For a socket that seems to be held; it may have been let go of just now.
  static constexpr Milliseconds held_time{200};

  /// Connects and negotiates, if it is the process `qemu` that listens there (else permission:
  /// nothing is sent). timeout if nobody greets us: the socket is held by another client, or QEMU
  /// is stopped. The connection is given back when the client is destroyed.
  static Result<QmpClient> connect(const std::string& path, pid_t qemu,
                                   Milliseconds patience = greeting_time);

  /// Speaks on a connected stream socket; the other side greets first. For tests.
  static Result<QmpClient> negotiate(UniqueFd socket, Milliseconds patience = greeting_time);

  /// A connection that was negotiated, and what was read from it already.
  static QmpClient adopt(UniqueFd socket, std::string received);

  struct Command {
    std::string name;
    nlohmann::json arguments = nlohmann::json::object();
    int descriptor = -1;  // goes with it (add-fd, getfd); QEMU gets a copy
  };
  /// A command of the human monitor, whose value is text.
  static Command human(std::string command_line);

  /// What QEMU tells unasked.
  struct Event {
    std::string name;  // "STOP", "MIGRATION"
    nlohmann::json data;
    std::uint64_t time_us = 0;  // the host's wall clock
  };

  /// Sends all commands at once and gives the value of each "return", in order. The error is of the
  /// first command that fails: unsupported with QEMU's words if it refuses; timeout; os if the
  /// connection broke. A command with a descriptor must be sent alone.
  Result<std::vector<nlohmann::json>> execute_all(std::span<const Command> commands,
                                                  Milliseconds patience = command_time);
  Result<nlohmann::json> execute(Command command, Milliseconds patience = command_time);

  /// The events that came since they were last taken or forgotten; of very many only the last.
  std::vector<Event> take_events();
  /// The first event with this name that has not been taken yet. Others stay where they are.
  Result<Event> wait_event(std::string_view name, Milliseconds patience);

  /// How often QEMU has told of a reset of the machine since the connection was made. Waits for nothing.
  Result<std::uint64_t> resets();

  /// Whether the connection broke: nothing will be answered any more.
  bool broken() const { return broken_ || !socket_; }

  /// Speaks through this one from now on, which leads to the same monitor, and gives the old one.
  UniqueFd replace_socket(UniqueFd socket) { return std::exchange(socket_, std::move(socket)); }

 private:
  using Clock = std::chrono::steady_clock;
  explicit QmpClient(UniqueFd socket) : socket_(std::move(socket)) {}
  std::string to_line(const Command& command);
  Result<nlohmann::json> answer_to(const Command& command, std::uint64_t id,
                                   Clock::time_point deadline);
  Result<nlohmann::json> receive(Clock::time_point deadline);
  Result<void> check_flood(Clock::time_point deadline, std::size_t unwanted) const;
  Result<nlohmann::json> take_line(std::size_t end);
  void keep_event(const nlohmann::json& message);
  Result<void> send(std::string_view text, Clock::time_point deadline, int descriptor = -1);
  Error broke(int err, const char* action);

  UniqueFd socket_;
  std::string received_;  // what follows the last line taken
  std::uint64_t last_id_ = 0;
  std::deque<Event> events_;
  std::uint64_t resets_ = 0;
  bool broken_ = false;
};

/// Whether a client is connected to the listening socket at `path`, by the text of
/// /proc/PID/net/unix (see proc(5)). A relative path there matches the end of `path`.
bool has_client(std::string_view net_unix, std::string_view path);

/// The text that a command of the human monitor returned, with plain newlines.
Result<std::string> human_text(const nlohmann::json& answer);

}  // namespace vmsight
