// The vCPU threads are seized and stopped, and let go of again.
#include <fmt/format.h>
#include <optional>
#include <thread>

#include "halt/traced_threads.h"
#include "halt/vcpu_halt.h"

namespace vmsight {
namespace {

using nlohmann::json;

class PtraceHalt final : public VcpuHalt {
 public:
  PtraceHalt(const ProcessId& vm, VcpuRoster vcpus) : vm_(vm), vcpus_(std::move(vcpus)) {}

  Result<void> halt() override {
    VMSIGHT_CHECK(!traced_);
    constexpr std::chrono::seconds patience{1};
    const auto deadline = TracedThreads::Clock::now() + patience;
    while (true) {
      auto stopped = stop();
      if (stopped) return {};
      const bool was_taken = traced_->met_guard();
      static_cast<void>(resume());  // nothing stands while we wait
      if (has_ended(vm_)) return ended();
      if (!was_taken || TracedThreads::Clock::now() >= deadline) return stopped;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  }

  Result<void> resume() override {
    is_stuck_ = traced_ && !traced_->release();
    traced_.reset();
    return {};
  }

  bool is_stuck() const override { return is_stuck_; }

 private:
  Error ended() const {
    return {.code = ErrorCode::vm_gone, .message = fmt::format("process {} has ended", vm_.pid)};
  }

  Result<void> stop() {
    constexpr std::chrono::seconds patience{2};
    const auto deadline = TracedThreads::Clock::now() + patience;
    traced_.emplace(vm_.pid);
    VMSIGHT_TRY_VOID(traced_->interrupt(vcpus_.tids()));
    VMSIGHT_TRY_VOID(traced_->wait(deadline));
    VMSIGHT_TRY_VOID(stop_newcomers(deadline));
    if (traced_->size() > 0) return {};
    return ended();
  }

  Result<void> stop_newcomers(TracedThreads::Clock::time_point deadline) {
    while (TracedThreads::Clock::now() < deadline) {
      VMSIGHT_TRY(const std::vector<pid_t> fresh, vcpus_.update());
      if (fresh.empty()) return {};
      VMSIGHT_TRY_VOID(traced_->interrupt(fresh));
      VMSIGHT_TRY_VOID(traced_->wait(deadline));
    }
    return Error{.code = ErrorCode::timeout,
                 .message = fmt::format("stop process {}: it makes ever more threads", vm_.pid)};
  }

  ProcessId vm_;
  VcpuRoster vcpus_;
  std::optional<TracedThreads> traced_;  // while it is halted
  bool is_stuck_ = false;
};

std::optional<std::vector<pid_t>> parse_tids(const json& list) {
  constexpr std::size_t max_threads = 1u << 16;
  if (!list.is_array() || list.size() > max_threads) return std::nullopt;
  std::vector<pid_t> tids;
  for (const json& tid : list) {
    if (!tid.is_number_unsigned()) return std::nullopt;
    tids.push_back(tid.get<pid_t>());
  }
  return tids;
}

}  // namespace

std::unique_ptr<VcpuHalt> make_ptrace_halt(const ProcessId& vm, VcpuRoster vcpus) {
  return std::make_unique<PtraceHalt>(vm, std::move(vcpus));
}

json to_json(const VcpuThreads& threads) {
  return {{"vcpus", threads.tids}, {"others", threads.others}};
}

Result<VcpuRoster> parse_roster(pid_t pid, const json& config) {
  auto vcpus = parse_tids(config.value("vcpus", json()));
  auto others = parse_tids(config.value("others", json()));
  if (vcpus && others && !vcpus->empty()) {
    return VcpuRoster(pid, {.tids = *std::move(vcpus), .others = *std::move(others)});
  }
  return Error{.code = ErrorCode::bad_data, .message = "halt a VM: its vCPU threads are not given"};
}

}  // namespace vmsight
