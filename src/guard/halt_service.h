// Halting the vCPU threads. Config: how ("ptrace", "cgroups", or one version of the latter), vcpus, others, and longest_ms,
// the most that a lease may be: whoever asks may since have been taken over.
#pragma once

#include "guard/leased_halt.h"

namespace vmsight {

/// Serves `halt` and `resume`; services that do something to a halted guest are made of it.
class HaltService : public Service {
 public:
  explicit HaltService(std::unique_ptr<VcpuHalt> how, std::uint64_t longest_ms = longest_lease_ms)
      : halt_(std::move(how)), longest_ms_(longest_ms) {}

  Result<std::uint64_t> serve(const GuardQuestion& question) override;
  std::optional<GuardClock::time_point> deadline() const override { return halt_.deadline(); }
  void on_deadline() override { halt_.on_deadline(); }
  bool must_end() const override { return is_stuck_ || halt_.is_stuck(); }
  void end() override { static_cast<void>(halt_.resume()); }

 protected:
  LeasedHalt& halt() { return halt_; }
  /// A thread of QEMU that was borrowed has not come back: our end lets go of it.
  template <typename T>
  Result<T> note(Result<T> done) {
    is_stuck_ = is_stuck_ || (!done && done.error().code == ErrorCode::timeout);
    return done;
  }

 private:
  LeasedHalt halt_;
  std::uint64_t longest_ms_;  // what a lease may be
  bool is_stuck_ = false;
};

Result<std::unique_ptr<VcpuHalt>> make_vcpu_halt(const ServiceSetup& setup);

}  // namespace vmsight
