// A halt that ends by itself.
//
//   halt ----------------------- resume       success: nothing of the guest ran in between
//   halt ---- the lease runs out ---- resume  timeout: the guest has run since
#pragma once

#include <memory>
#include <optional>

#include "base/clock.h"
#include "guard/service.h"
#include "halt/vcpu_halt.h"

namespace vmsight {

class LeasedHalt {
 public:
  explicit LeasedHalt(std::unique_ptr<VcpuHalt> how) : how_(std::move(how)) {}

  Result<void> halt(std::chrono::milliseconds lease);
  /// Value: how long the guest was halted, in ns.
  Result<std::uint64_t> resume();
  /// What must be done while the guest is halted asks first.
  Result<void> check() const;

  std::optional<GuardClock::time_point> deadline() const { return deadline_; }
  void on_deadline();
  bool is_stuck() const { return how_->is_stuck(); }

 private:
  std::unique_ptr<VcpuHalt> how_;
  std::chrono::milliseconds lease_{};
  std::optional<GuardClock::time_point> deadline_;  // while the guest is halted
  Stopwatch halted_;
  bool ran_out_ = false;
};

/// Why a halt ended before it was asked to.
Error lease_ran_out(std::chrono::milliseconds lease);

constexpr std::uint64_t longest_lease_ms = 3'600'000;
/// A lease as a request has it: 1 ms to an hour, or to what the owner said before that he will not ask for more than.
Result<std::chrono::milliseconds> parse_lease(std::uint64_t milliseconds,
                                              std::uint64_t most = longest_lease_ms);

}  // namespace vmsight
