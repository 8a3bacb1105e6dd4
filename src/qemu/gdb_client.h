// A client of QEMU's gdbstub. Connecting stops the guest, and any packet stops it again; a client
// that goes without detach() leaves it stopped. Questions are pipelined: many go out in one write.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "qemu/gdb_text.h"
#include "vmsight/address.h"
#include "vmsight/result.h"

namespace vmsight {

class GdbClient {
 public:
  using Milliseconds = std::chrono::milliseconds;
  static constexpr Milliseconds answer_time{5000};

  /// Speaks on a connected stream socket: learns what the stub can do, agrees to acknowledge
  /// nothing where it can, and makes addresses guest-physical. timeout if nobody answers (another debugger has
  /// the stub); unsupported if the stub has no physical mode.
  static Result<GdbClient> negotiate(UniqueFd socket, Milliseconds patience = answer_time);

  /// Sends all packets at once and gives the answer to each, in order. Stop replies that arrive
  /// meanwhile are skipped. timeout; os if the connection broke; bad_data.
  Result<std::vector<std::string>> ask_all(std::span<const std::string> questions,
                                           Milliseconds patience = answer_time);
  Result<std::string> ask(std::string question, Milliseconds patience = answer_time);

  /// Most bytes that one question for memory may ask for.
  std::size_t max_memory() const { return max_memory_; }
  static std::string memory_question(GuestPhys from, std::size_t size);

  // The guest may also run while we are connected. Nothing can be asked then: the first byte that
  // the stub gets stops the guest, and is lost.

  /// Tells the stub all of `orders`, each of which it must answer with OK, and then how to go on:
  /// "vCont;c" or "vCont;s:p1.2". bad_data, naming the order, if one is refused: the guest still
  /// stands then.
  Result<void> run(std::span<const std::string> orders, std::string_view how = "vCont;c",
                   Milliseconds patience = answer_time);
  /// Until the guest stops; nullopt if it still runs after `patience`.
  Result<std::optional<GdbStop>> wait_stop(Milliseconds patience);
  /// Stops it. What comes first counts: it may have been about to stop by itself.
  Result<GdbStop> interrupt(Milliseconds patience = answer_time);
  bool is_running() const { return running_; }
  /// Somebody else has let the guest run.
  void runs_again() { running_ = true; }

  /// The guest runs on, without any breakpoints; nothing may be asked after this.
  Result<void> detach(Milliseconds patience = answer_time);

 private:
  using Clock = std::chrono::steady_clock;
  explicit GdbClient(UniqueFd socket) : socket_(std::move(socket)) {}
  Result<void> send(std::string_view text, Clock::time_point deadline);
  Result<std::string> receive(Clock::time_point deadline);
  Result<std::optional<std::string>> receive_or_not(Clock::time_point deadline);
  Result<void> expect_ok(std::string question, Milliseconds patience);

  UniqueFd socket_;
  GdbPackets packets_;
  std::size_t max_memory_ = 0;
  bool running_ = false;
};

}  // namespace vmsight
