#include "view/paused_memory.h"

#include "base/clock.h"

namespace vmsight {

Result<void> PausedMemory::do_refresh() {
  VMSIGHT_TRY_VOID(end_view());
  pause_ns_ = 0;
  halted_at_ = monotonic_ns();
  VMSIGHT_TRY(paused_, halter_->halt());
  if (auto fresh = access_->refresh(); !fresh) {
    static_cast<void>(end_view());
    return fresh;
  }
  return {};
}

Result<void> PausedMemory::do_end_view() {
  if (!paused_) return {};
  VMSIGHT_TRY(pause_ns_, paused_.resume());
  return {};
}

Result<ReadRights> prepare_halted(GuestMemory& access, Halter& halter) {
  VMSIGHT_TRY(ReadRights rights, access.prepare());
  if (rights.suffice) {
    VMSIGHT_TRY(rights.suffice, halter.start_guard());
  }
  return rights;
}

MemoryCounters PausedMemory::counters() const {
  MemoryCounters counters = access_->counters();
  counters.pause_ns = paused_ ? monotonic_ns() - halted_at_ : pause_ns_;
  return counters;
}

}  // namespace vmsight
