// The one connection of this process to a VM's monitor. A QMP socket serves one client at a time,
// so all of us that speak to it at the same time must share it:
//
//   views by the monitor -+
//   the stop halter ------+--> MonitorSession --> QmpClient --> QEMU
//   Vm::registers() ------+
//
// Take one with MonitorSession::of() and keep it for as long as it is needed; the socket is free
// for others again when the last owner lets go. A halter or view keeps it while it is open: then
// nobody else can come between its halt and its resume.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qemu/qmp.h"
#include "undo/guard.h"
#include "undo/journal.h"
#include "vmsight/vm.h"

namespace vmsight {

/// Its calls may come from several threads; each is a whole exchange with QEMU.
class MonitorSession {
 public:
  using Milliseconds = QmpClient::Milliseconds;
  using Command = QmpClient::Command;
  using Event = QmpClient::Event;

  /// The open session with this VM, or a new one, by connect_monitor() and with its errors. A
  /// session whose connection broke is not given out again.
  static Result<std::shared_ptr<MonitorSession>> of(const VmInfo& info);

  MonitorSession(const ProcessId& vm, QmpClient client) : vm_(vm), client_(std::move(client)) {}

  /// Whether this process has an open session with the VM.
  static bool is_open(const VmInfo& info);

  /// As the functions of QmpClient that have these names.
  Result<std::vector<nlohmann::json>> execute_all(std::span<const Command> commands,
                                                  Milliseconds patience = QmpClient::command_time);
  Result<nlohmann::json> execute(Command command, Milliseconds patience = QmpClient::command_time);
  std::vector<Event> take_events();
  Result<Event> wait_event(std::string_view name, Milliseconds patience);
  Result<std::uint64_t> resets();

  /// What a command of the human monitor says, with plain newlines.
  Result<std::string> human(std::string command_line,
                            Milliseconds patience = QmpClient::command_time);

  /// Of the guard that holds this connection from the first question on (its service is "monitor"):
  /// halt, resume, hold, write, revert.
  Result<std::uint64_t> ask(GuardRequest request, std::uint64_t argument = 0);
  Result<std::uint64_t> ask(GuardRequest request, const nlohmann::json& payload);
  /// From now on the guard halts and resumes the guest for us, with leases of at most so long, and the connection is out of
  /// our reach.
  Result<void> keep_only_halts(std::chrono::milliseconds longest);
  /// We are about to change settings of QEMU, or to make it stop the guest. The guard undoes that
  /// when we are gone, or when the guest has been standing for longer than `max_halt`; then nothing
  /// can be asked of this session any more.
  Result<void> arm(const Change& change, std::chrono::milliseconds max_halt);
  /// All is as it was. timeout if the guard had to undo it.
  Result<void> disarm();

  /// Several exchanges that nobody must come between: `use(QmpClient&)`.
  template <typename Use>
  auto with_client(Use use) {
    const std::lock_guard lock(mutex_);
    return use(client_);
  }

 private:
  bool broken();
  Result<void> start_guard();

  std::mutex mutex_;
  ProcessId vm_;
  QmpClient client_;
  std::unique_ptr<Guard> guard_;
  bool only_halts_ = false;
};

/// Why talking to QEMU failed: vm_gone if it has ended or is about to, else `error`.
Error explain_failure(const Vm& vm, Error error);

}  // namespace vmsight
