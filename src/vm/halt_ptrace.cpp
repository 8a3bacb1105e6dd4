// Halting by ptrace: the vCPU threads are seized and stopped, and let go of again.
//
// What stands: all guest instructions. What does not: QEMU's other threads and the host's kernel,
// which may still finish transfers of emulated devices into guest RAM (data buffers and the rings
// of virtio devices). Structures of the guest's kernel are written by its own instructions only.
#include "vmsight/halt.h"

#include <fmt/format.h>
#include <optional>

#include "vm/process.h"
#include "vm/traced_threads.h"
#include "vm/vcpu_threads.h"

namespace vmsight {
namespace {

class PtraceHalter final : public Halter {
 public:
  PtraceHalter(const Vm& vm, VcpuRoster vcpus)
      : vm_(vm), pid_(vm.info().pid), vcpus_(std::move(vcpus)) {}

  ~PtraceHalter() override {
    if (traced_) static_cast<void>(resume());
  }

  Result<Paused> halt() override {
    VMSIGHT_CHECK(!traced_);
    VMSIGHT_TRY_VOID(vm_.check_alive());
    Result<void> stopped;
    VMSIGHT_TRY_VOID(tracer_.run([&] { stopped = stop(); }));
    if (stopped) return Paused(*this);
    VMSIGHT_TRY_VOID(resume());
    VMSIGHT_TRY_VOID(vm_.check_alive());
    return std::move(stopped).error();
  }

  std::string_view name() const override { return "ptrace"; }

 private:
  /// On the tracer's thread.
  Result<void> stop() {
    constexpr std::chrono::seconds patience{2};
    const auto deadline = TracedThreads::Clock::now() + patience;
    traced_.emplace(pid_);
    VMSIGHT_TRY_VOID(traced_->interrupt(vcpus_.tids()));
    VMSIGHT_TRY_VOID(traced_->wait(deadline));
    VMSIGHT_TRY_VOID(stop_newcomers(deadline));
    if (traced_->size() > 0) return {};
    return Error{.code = ErrorCode::vm_gone, .message = fmt::format("process {} has ended", pid_)};
  }

  Result<void> stop_newcomers(TracedThreads::Clock::time_point deadline) {
    while (TracedThreads::Clock::now() < deadline) {
      VMSIGHT_TRY(const std::vector<pid_t> fresh, vcpus_.update());
      if (fresh.empty()) return {};
      VMSIGHT_TRY_VOID(traced_->interrupt(fresh));
      VMSIGHT_TRY_VOID(traced_->wait(deadline));
    }
    return Error{.code = ErrorCode::timeout,
                 .message = fmt::format("stop process {}: it makes ever more threads", pid_)};
  }

  Result<void> resume() override {
    bool all = true;
    VMSIGHT_TRY_VOID(tracer_.run([&] {
      all = traced_->release();
      traced_.reset();
    }));
    // The kernel lets go of what would not stop when the thread that asked for it ends.
    if (!all) tracer_.end();
    return {};
  }

  const Vm& vm_;
  pid_t pid_;
  VcpuRoster vcpus_;
  std::optional<TracedThreads> traced_;  // while it stands
  TracerThread tracer_;
};

}  // namespace

Result<std::unique_ptr<Halter>> open_ptrace_halter(const Vm& vm) {
  VMSIGHT_TRY_VOID(vm.check_alive());
  VMSIGHT_TRY_VOID(check_may_trace(vm.info().pid));
  VMSIGHT_TRY(VcpuThreads threads, find_vcpu_threads(vm.info()));
  return std::unique_ptr<Halter>(
      std::make_unique<PtraceHalter>(vm, VcpuRoster(vm.info().pid, std::move(threads))));
}

}  // namespace vmsight
