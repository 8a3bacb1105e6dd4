// Halting by the freezer of control groups: the vCPU threads are moved into a group of ours at the
// first halt and stay there while the halter lives; a halt is one write, and so is resuming.
//
// What stands is what stands under ptrace: all guest instructions, not QEMU's other threads.
#include <fmt/format.h>
#include <array>
#include <memory>

#include "vm/freezer.h"
#include "vm/vcpu_threads.h"
#include "vmsight/halt.h"

namespace vmsight {
namespace {

class FreezerHalter final : public Halter {
 public:
  FreezerHalter(const Vm& vm, std::span<const Freezing> ways, VcpuRoster vcpus,
                std::unique_ptr<Freezer> freezer)
      : vm_(vm),
        ways_(ways.begin(), ways.end()),
        vcpus_(std::move(vcpus)),
        freezer_(std::move(freezer)) {}

  Result<Paused> halt() override {
    VMSIGHT_TRY_VOID(vm_.check_alive());
    auto stands = stop();
    if (stands) return Paused(*this);
    freezer_.reset();
    VMSIGHT_TRY_VOID(vm_.check_alive());
    return std::move(stands).error();
  }

  std::string_view name() const override { return "freezer"; }

 private:
  /// Until no vCPU is outside: one may be plugged in at any moment.
  Result<void> stop() {
    constexpr std::chrono::seconds patience{2};
    const auto deadline = Freezer::Clock::now() + patience;
    VMSIGHT_TRY(bool moved, gather());
    do {
      VMSIGHT_TRY_VOID(freezer_->freeze(deadline));
      VMSIGHT_TRY(moved, gather());
      if (moved && Freezer::Clock::now() >= deadline) {
        return Error{.code = ErrorCode::timeout,
                     .message = fmt::format("freeze process {}: it makes ever more threads",
                                            vm_.info().pid)};
      }
    } while (moved);
    return {};
  }

  /// All vCPU threads are in groups of ours; whether one was not.
  Result<bool> gather() {
    VMSIGHT_TRY_VOID(vcpus_.update());
    if (vcpus_.tids().empty()) {
      return Error{.code = ErrorCode::vm_gone,
                   .message = fmt::format("process {} has ended", vm_.info().pid)};
    }
    auto moved = take_in();
    if (moved || moved.error().code != ErrorCode::not_found) return moved;
    freezer_.reset();  // they are elsewhere now than when it was prepared: libvirt moves new ones
    return take_in();
  }

  Result<bool> take_in() {
    if (!freezer_) {
      VMSIGHT_TRY(freezer_, Freezer::prepare(vm_.info(), vcpus_.tids(), ways_));
    }
    if (!freezer_->entered()) VMSIGHT_TRY_VOID(freezer_->enter());
    return freezer_->take_in(vcpus_.tids());
  }

  Result<void> resume() override {
    auto thawed = freezer_->thaw();
    if (!thawed) freezer_.reset();
    return thawed;
  }

  const Vm& vm_;
  std::vector<Freezing> ways_;  // best first
  VcpuRoster vcpus_;
  std::unique_ptr<Freezer> freezer_;  // none after a failure
};

Result<std::unique_ptr<Halter>> open_by(const Vm& vm, std::span<const Freezing> ways) {
  VMSIGHT_TRY_VOID(vm.check_alive());
  VMSIGHT_TRY(VcpuThreads threads, find_vcpu_threads(vm.info()));
  VMSIGHT_TRY(std::unique_ptr<Freezer> freezer, Freezer::prepare(vm.info(), threads.tids, ways));
  return std::unique_ptr<Halter>(std::make_unique<FreezerHalter>(
      vm, ways, VcpuRoster(vm.info().pid, std::move(threads)), std::move(freezer)));
}

}  // namespace

Result<std::unique_ptr<Halter>> open_freezer_halter(const Vm& vm) {
  constexpr std::array<Freezing, 2> ways{freezing_v2, freezing_v1};
  return open_by(vm, ways);
}

Result<std::unique_ptr<Halter>> open_freezer_halter(const Vm& vm, const Freezing& how) {
  return open_by(vm, {&how, 1});
}

}  // namespace vmsight
