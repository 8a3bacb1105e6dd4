// A command of the user's on this host that makes the guest call a function so many times: by ssh, an
// agent, a test rig. vmsight itself has nothing in the guest that could.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "vmsight/result.h"

namespace vmsight {

struct CallRun {
  std::uint64_t elapsed_ns = 0;          // from its start to its end, by this host's clock
  std::optional<std::uint64_t> told_ns;  // what it said itself that the calls took
};

/// What a command says of its own duration: the last line "ns NUMBER" of its output.
std::optional<std::uint64_t> parse_told_ns(std::string_view output);

class CallCommand {
 public:
  /// A command of the shell, which finds the number of calls in $CALLS. It must return when they are made.
  explicit CallCommand(std::string command) : command_(std::move(command)) {}

  struct Meanwhile {
    std::chrono::milliseconds every{0};  // 0: without waiting in between; it waits itself
    std::function<Result<void>()> run;
  };
  /// Runs it, and `meanwhile` until it ends, whose error ends the command. os if the command fails, with the
  /// end of what it said; timeout after `seconds`.
  Result<CallRun> run(std::uint64_t calls, double seconds, const Meanwhile& meanwhile) const;

 private:
  std::string command_;
};

}  // namespace vmsight
