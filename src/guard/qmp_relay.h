// The one connection to a VM's QMP socket, shared by a guard and its owner.
//
//   owner <--- lines ---> QmpRelay <--- lines ---> QEMU
//                            ^
//                          guard: commands of its own, and the events STOP and RESUME
//
// Whole lines pass, and of the owner's only commands of a list: so whatever becomes of the owner,
// the guard can go on speaking at any moment. Answers are passed on unread, but the guard's own.
#pragma once

#include <poll.h>

#include <chrono>
#include <deque>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "qemu/qmp.h"

namespace vmsight {

class QmpRelay {
 public:
  /// Both non-blocking. QEMU's side has been greeted.
  QmpRelay(UniqueFd qemu, UniqueFd owner) : qemu_(std::move(qemu)), owner_(std::move(owner)) {}

  using OnEvent = std::function<void(std::string_view name)>;
  /// Whether the owner may give this command; it is asked of each.
  using Allows = std::function<bool(const nlohmann::json& command)>;
  void set(OnEvent on_event, Allows allows) {
    on_event_ = std::move(on_event);
    allows_ = std::move(allows);
  }

  void watch(std::vector<pollfd>& events) const;
  /// Moves what can be moved. An error if QEMU closed the connection.
  Result<void> pump();

  /// A command of the guard's.
  Result<nlohmann::json> execute(const QmpClient::Command& command,
                                 std::chrono::milliseconds patience);

  /// The owner has no part in it any more.
  void cut_off();

  /// Ends the relay: the owner is cut off, and the connection is the caller's.
  Result<QmpClient> take();
  bool is_open() const { return static_cast<bool>(qemu_); }

 private:
  struct Outgoing {
    std::string line;
    UniqueFd descriptor;
    std::size_t sent = 0;
  };
  Result<void> read_qemu();
  void read_owner();
  void take_line_of_owner(std::string line);
  void take_line_of_qemu(const std::string& line);
  Result<void> write_qemu();
  void write_owner();

  UniqueFd qemu_, owner_;
  OnEvent on_event_;
  Allows allows_;
  std::string from_qemu_, from_owner_;  // what follows the last whole line
  UniqueFd from_owner_descriptor_;      // goes with its next line
  std::deque<Outgoing> to_qemu_;
  std::string to_owner_;
  std::uint64_t last_id_ = 0;
  std::string awaited_;    // the id of a command of ours
  nlohmann::json answer_;  // to it, when it is there
};

}  // namespace vmsight
