#include "guard/leased_halt.h"

#include <fmt/format.h>

#include <algorithm>

namespace vmsight {

Result<void> LeasedHalt::halt(std::chrono::milliseconds lease) {
  if (deadline_) {
    return Error{.code = ErrorCode::usage, .message = "halt the guest: it is halted already"};
  }
  ran_out_ = false;
  lease_ = lease;
  // From before, so that the guest is never halted for longer.
  const auto deadline = GuardClock::now() + lease;
  halted_ = Stopwatch();
  VMSIGHT_TRY_VOID(how_->halt());
  deadline_ = deadline;
  return {};
}

Result<std::uint64_t> LeasedHalt::resume() {
  if (std::exchange(ran_out_, false)) return lease_ran_out(lease_);
  if (!deadline_) return std::uint64_t{0};
  deadline_.reset();
  VMSIGHT_TRY_VOID(how_->resume());
  return halted_.elapsed_ns();
}

Result<void> LeasedHalt::check() const {
  if (deadline_) return {};
  if (ran_out_) return lease_ran_out(lease_);
  return Error{.code = ErrorCode::usage, .message = "change the guest: it is not halted"};
}

void LeasedHalt::on_deadline() {
  if (!deadline_) return;
  deadline_.reset();
  ran_out_ = true;
  static_cast<void>(how_->resume());
}

Error lease_ran_out(std::chrono::milliseconds lease) {
  return {.code = ErrorCode::timeout,
          .message = fmt::format(
              "the guest was to be halted for {} ms at most, and runs again: what was read is not "
              "of one moment",
              lease.count()),
          .hint = "allow more with --max-halt, or take a snapshot: --technique live-snap"};
}

Result<std::chrono::milliseconds> parse_lease(std::uint64_t milliseconds, std::uint64_t most) {
  if (milliseconds >= 1 && milliseconds <= std::min(most, longest_lease_ms))
    return std::chrono::milliseconds(milliseconds);
  return Error{.code = ErrorCode::usage,
               .message = fmt::format("halt the guest: a lease of {} ms", milliseconds)};
}

}  // namespace vmsight
