// Halting by QMP: stop and cont. QEMU lets go of its vCPUs, of the guest's clock and of transfers
// that were under way, so nothing at all changes in the guest's RAM meanwhile.
#include <fmt/format.h>
#include <algorithm>
#include <array>

#include "vm/monitor.h"
#include "vm/monitor_session.h"
#include "vm/resume_guard.h"
#include "vmsight/halt.h"

namespace vmsight {
namespace {

/// States that QEMU leaves only if it is told to. (QMP RunState; of the others "suspended" ends with
/// an interrupt, and "save-vm", "finish-migrate", "inmigrate" and the like end by themselves.)
constexpr std::array<std::string_view, 9> stands = {
    "debug",     "guest-panicked", "internal-error", "io-error", "paused",
    "prelaunch", "postmigrate",    "shutdown",       "watchdog"};

class StopHalter final : public Halter {
 public:
  StopHalter(const Vm& vm, std::shared_ptr<MonitorSession> session, ResumeGuard guard)
      : vm_(vm), session_(std::move(session)), guard_(std::move(guard)) {}

  ~StopHalter() override {
    if (stopped_) static_cast<void>(resume());
  }

  Result<Paused> halt() override {
    VMSIGHT_CHECK(!stopped_);
    const auto status = session_->with_client(&ask_run_state);
    if (!status) return explain_failure(vm_, status.error());
    VMSIGHT_TRY_VOID(*status == "running" ? stop() : check_stands(*status));
    return Paused(*this);
  }

  std::string_view name() const override { return "stop"; }

 private:
  static Result<void> check_stands(const std::string& status) {
    if (std::find(stands.begin(), stands.end(), status) != stands.end()) return {};
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("stop the guest: its state is \"{}\"", status),
                 .hint = "try again when it runs"};
  }

  Result<void> stop() {
    VMSIGHT_TRY_VOID(guard_.arm());
    stopped_ = true;
    auto done = session_->execute({"stop"});
    if (done) return {};
    Error error = explain_failure(vm_, std::move(done).error());
    static_cast<void>(resume());  // it may have got the command and only been slow to answer
    return error;
  }

  /// A guest that somebody else had stopped was not stopped by us. Where this fails, the guard does
  /// it once the monitor is free.
  Result<void> resume() override {
    if (!stopped_) return {};
    stopped_ = false;
    auto done = session_->execute({"cont"});
    if (done) return guard_.disarm();
    Error error = explain_failure(vm_, std::move(done).error());
    if (error.code != ErrorCode::vm_gone) error.hint = "`cont` in QEMU's monitor resumes the guest";
    return error;
  }

  const Vm& vm_;
  std::shared_ptr<MonitorSession> session_;
  ResumeGuard guard_;
  bool stopped_ = false;  // by us
};

}  // namespace

Result<std::unique_ptr<Halter>> open_stop_halter(const Vm& vm) {
  VMSIGHT_TRY_VOID(vm.check_alive());
  VMSIGHT_TRY(auto session, MonitorSession::of(vm.info()));
  VMSIGHT_TRY(ResumeGuard guard, ResumeGuard::start(vm.info(), {.kind = "stopped"}));
  return std::unique_ptr<Halter>(
      std::make_unique<StopHalter>(vm, std::move(session), std::move(guard)));
}

}  // namespace vmsight
