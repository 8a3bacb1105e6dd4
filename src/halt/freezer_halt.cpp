// The vCPU threads are moved into a control group of ours at the first halt and stay there; a halt
// is one write, and so is resuming.
#include <fmt/format.h>
#include <array>

#include "halt/freezer.h"
#include "halt/vcpu_halt.h"

namespace vmsight {
namespace {

class FreezerHalt final : public VcpuHalt {
 public:
  FreezerHalt(const ProcessId& vm, VcpuRoster vcpus, std::span<const Freezing> ways,
              const ProcessId& author)
      : vm_(vm), author_(author), ways_(ways.begin(), ways.end()), vcpus_(std::move(vcpus)) {}

  Result<void> halt() override {
    auto stands = stop();
    if (stands) return {};
    freezer_.reset();
    if (has_ended(vm_)) return ended();
    return stands;
  }

  Result<void> resume() override {
    if (!freezer_) return {};
    auto thawed = freezer_->thaw();
    if (!thawed) freezer_.reset();
    return thawed;
  }

  /// A group stays frozen when this process ends: it is the journal that tells of it.
  bool is_stuck() const override { return false; }

 private:
  Error ended() const {
    return {.code = ErrorCode::vm_gone, .message = fmt::format("process {} has ended", vm_.pid)};
  }

  /// Until no vCPU is outside: one may be plugged in at any moment.
  Result<void> stop() {
    constexpr std::chrono::seconds patience{2};
    const auto deadline = Freezer::Clock::now() + patience;
    VMSIGHT_TRY(bool moved, gather());
    do {
      VMSIGHT_TRY_VOID(freezer_->freeze(deadline));
      VMSIGHT_TRY(moved, gather());
      if (moved && Freezer::Clock::now() >= deadline) {
        return Error{
            .code = ErrorCode::timeout,
            .message = fmt::format("freeze process {}: it makes ever more threads", vm_.pid)};
      }
    } while (moved);
    return {};
  }

  /// All vCPU threads are in groups of ours; whether one was not.
  Result<bool> gather() {
    VMSIGHT_TRY_VOID(vcpus_.update());
    if (vcpus_.tids().empty()) return ended();
    auto moved = take_in();
    if (moved || moved.error().code != ErrorCode::not_found) return moved;
    freezer_.reset();  // they are elsewhere now than when it was prepared: libvirt moves new ones
    return take_in();
  }

  Result<bool> take_in() {
    if (!freezer_) {
      VMSIGHT_TRY(freezer_, Freezer::prepare(vm_, vcpus_.tids(), ways_, author_));
    }
    if (!freezer_->entered()) VMSIGHT_TRY_VOID(freezer_->enter());
    return freezer_->take_in(vcpus_.tids());
  }

  ProcessId vm_, author_;
  std::vector<Freezing> ways_;  // best first
  VcpuRoster vcpus_;
  std::unique_ptr<Freezer> freezer_;  // none after a failure
};

}  // namespace

std::unique_ptr<VcpuHalt> make_freezer_halt(const ProcessId& vm, VcpuRoster vcpus,
                                            std::span<const Freezing> ways,
                                            const ProcessId& author) {
  return std::make_unique<FreezerHalt>(vm, std::move(vcpus), ways, author);
}

}  // namespace vmsight
