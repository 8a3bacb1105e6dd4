// A VM's gdbstub, started for each halt and ended with it, so that nothing is left between:
//
//   halt()    we listen on an abstract socket; `gdbserver unix:...` makes QEMU connect to it, which
//             stops the guest
//   resume()  detach, which removes breakpoints, `gdbserver none`
//
// An abstract socket has no file, and whoever connects must be the QEMU process. Should we end in
// between, or leave the guest halted for longer than the lease, the guard of the monitor does what
// resume() does: it needs no connection to the stub for that. (QEMU keeps the chardev of its gdbstub's own monitor,
// "#chr...", from the first start on.)
#pragma once

#include <memory>
#include <optional>

#include "base/clock.h"
#include "qemu/gdb_client.h"
#include "qemu/monitor_session.h"
#include "vmsight/halt.h"

namespace vmsight {

class GdbStub final : public Halter {
 public:
  /// What the stub is started for: breakpoints are removed, too, should we end in between.
  enum class Use { reads, breakpoints };
  /// `vm` must outlive it. unsupported if the monitor cannot be used, or a gdbstub is there
  /// already (-gdb, -s, or somebody's debugger). Changes nothing.
  static Result<std::unique_ptr<GdbStub>> open(
      const Vm& vm, Use use = Use::reads, std::chrono::milliseconds max_halt = default_max_halt);
  ~GdbStub() override {
    if (started_) static_cast<void>(let_go());
  }

  Result<Paused> halt() override;
  /// Its connection could write the guest's memory.
  Result<bool> start_guard() override { return false; }
  std::string_view name() const override { return "gdbstub"; }

  /// nullptr unless the guest is halted. It may be let run by its client meanwhile: resume() stops
  /// it again, removes all breakpoints, and lets it go.
  GdbClient* client() { return client_ ? &*client_ : nullptr; }
  /// Somebody else has stopped the guest meanwhile: resume() leaves it so. Breakpoints must have
  /// been removed.
  void leave_standing() { leaves_standing_ = true; }
  /// Before the client stops a guest that runs, and after it was let run again: it is we who hold it
  /// meanwhile, not somebody else. (A breakpoint needs no such word.)
  Result<void> announce_hold(bool holds);
  /// timeout if the guard had to let the guest go: nothing is armed any more.
  Error explain(Error error);

 private:
  GdbStub(const Vm& vm, std::chrono::milliseconds max_halt) : vm_(vm), max_halt_(max_halt) {}
  Result<std::uint64_t> resume() override;
  Result<void> let_go();
  Result<void> check_unused();
  Result<void> prepare();
  Result<void> connect();
  Result<UniqueFd> start();

  const Vm& vm_;
  std::shared_ptr<MonitorSession> session_;
  Change change_;
  std::chrono::milliseconds max_halt_;
  std::optional<GdbClient> client_;
  bool started_ = false;      // QEMU was told to
  bool was_running_ = false;  // before halt()
  bool leaves_standing_ = false;
  Stopwatch halted_;
};

/// A gdbstub that may hold the guest. Payload: {"breakpoints": true} if there may be some in it.
extern const ChangeKind gdbstub_change;

}  // namespace vmsight
