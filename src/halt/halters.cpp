// The halters, which ask a guard: see undo/guard.h.
#include "vmsight/halt.h"

#include <fmt/format.h>
#include <array>
#include <cerrno>

#include "halt/freezer_halter.h"
#include "halt/traced_threads.h"
#include "halt/vcpu_halt.h"
#include "qemu/monitor_session.h"
#include "sandbox/sandbox.h"
#include "undo/guard.h"

namespace vmsight {

namespace {

using std::chrono::milliseconds;

std::uint64_t as_argument(milliseconds lease) { return static_cast<std::uint64_t>(lease.count()); }

/// By a guard of its own, of the service "halt".
class ThreadHalter final : public Halter {
 public:
  ThreadHalter(const Vm& vm, std::string_view name, nlohmann::json config, milliseconds max_halt)
      : vm_(vm), name_(name), config_(std::move(config)), max_halt_(max_halt) {}

  Result<Paused> halt() override {
    VMSIGHT_TRY_VOID(vm_.check_alive());
    VMSIGHT_TRY_VOID(start());
    auto halted = guard_->ask(GuardRequest::halt, as_argument(max_halt_));
    if (halted) return Paused(*this);
    VMSIGHT_TRY_VOID(vm_.check_alive());
    return std::move(halted).error();
  }

  Result<bool> start_guard() override {
    VMSIGHT_TRY_VOID(start());
    return true;
  }

  std::string_view name() const override { return name_; }

 private:
  Result<void> start() {
    if (guard_ && guard_->alive()) return {};
    if (is_in_sandbox()) {
      return Error{.code = ErrorCode::os,
                   .message = "the guard of the VM has ended, and a sandbox starts no other",
                   .hint = "run vmsight again: the VM runs on as before",
                   .os_errno = EPIPE};
    }
    guard_.reset();
    config_["longest_ms"] = as_argument(max_halt_);
    VMSIGHT_TRY(guard_, Guard::start({vm_.info().pid, vm_.info().start_time},
                                     {.service = "halt", .config = config_, .descriptors = {}}));
    return {};
  }

  Result<std::uint64_t> resume() override {
    auto resumed = guard_->ask(GuardRequest::resume);
    if (resumed) return resumed;
    VMSIGHT_TRY_VOID(vm_.check_alive());
    return std::move(resumed).error();
  }

  const Vm& vm_;
  std::string_view name_;
  nlohmann::json config_;
  milliseconds max_halt_;
  std::unique_ptr<Guard> guard_;
};

/// By the guard that holds the monitor.
class StopHalter final : public Halter {
 public:
  StopHalter(const Vm& vm, std::shared_ptr<MonitorSession> session, milliseconds max_halt)
      : vm_(vm), session_(std::move(session)), max_halt_(max_halt) {}

  Result<Paused> halt() override {
    auto halted = session_->ask(GuardRequest::halt, as_argument(max_halt_));
    if (halted) return Paused(*this);
    return explain_failure(vm_, std::move(halted).error());
  }

  Result<bool> start_guard() override {
    VMSIGHT_TRY_VOID(session_->keep_only_halts(max_halt_));
    return true;
  }

  std::string_view name() const override { return "stop"; }

 private:
  Result<std::uint64_t> resume() override {
    auto resumed = session_->ask(GuardRequest::resume);
    if (resumed) return resumed;
    return explain_failure(vm_, std::move(resumed).error());
  }

  const Vm& vm_;
  std::shared_ptr<MonitorSession> session_;
  milliseconds max_halt_;
};

Result<std::unique_ptr<Halter>> open_by_cgroups(const Vm& vm, std::span<const Freezing> ways,
                                                std::string_view how, milliseconds max_halt) {
  VMSIGHT_TRY_VOID(vm.check_alive());
  VMSIGHT_TRY(const VcpuThreads threads, find_vcpu_threads(vm.info()));
  VMSIGHT_TRY_VOID(check_freezer({vm.info().pid, vm.info().start_time}, threads.tids, ways));
  nlohmann::json config = to_json(threads);
  config["how"] = how;
  return std::unique_ptr<Halter>(
      std::make_unique<ThreadHalter>(vm, "freezer", std::move(config), max_halt));
}

}  // namespace

Result<std::unique_ptr<Halter>> open_ptrace_halter(const Vm& vm, milliseconds max_halt) {
  VMSIGHT_TRY_VOID(vm.check_alive());
  VMSIGHT_TRY_VOID(check_may_trace(vm.info().pid));
  VMSIGHT_TRY(const VcpuThreads threads, find_vcpu_threads(vm.info()));
  return std::unique_ptr<Halter>(
      std::make_unique<ThreadHalter>(vm, "ptrace", to_json(threads), max_halt));
}

Result<std::unique_ptr<Halter>> open_stop_halter(const Vm& vm, milliseconds max_halt) {
  VMSIGHT_TRY_VOID(vm.check_alive());
  VMSIGHT_TRY(auto session, MonitorSession::of(vm.info()));
  return std::unique_ptr<Halter>(std::make_unique<StopHalter>(vm, std::move(session), max_halt));
}

Result<std::unique_ptr<Halter>> open_freezer_halter(const Vm& vm, milliseconds max_halt) {
  constexpr std::array<Freezing, 2> ways{freezing_v2, freezing_v1};
  return open_by_cgroups(vm, ways, "cgroups", max_halt);
}

Result<std::unique_ptr<Halter>> open_freezer_halter(const Vm& vm, const Freezing& how) {
  constexpr milliseconds longer_than_a_test{60'000};
  return open_by_cgroups(vm, {&how, 1}, how.name, longer_than_a_test);
}

}  // namespace vmsight
