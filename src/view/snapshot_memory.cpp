#include "view/snapshot_memory.h"

namespace vmsight {

Result<void> SnapshotMemory::do_refresh() {
  VMSIGHT_TRY_VOID(end_view());
  VMSIGHT_TRY(snapshot_, snapshotter_->take());
  inner_ = snapshot_.memory.get();
  return {};
}

Result<void> SnapshotMemory::do_end_view() {
  if (!snapshot_.memory) return {};
  last_ = counters();
  inner_ = live_.get();
  snapshot_ = {};
  return live_->refresh();
}

MemoryCounters SnapshotMemory::counters() const {
  if (!snapshot_.memory) return last_;
  MemoryCounters counters = snapshot_.memory->counters();
  counters.bytes += snapshot_.bytes;
  counters.pause_ns = snapshot_.pause_ns;
  return counters;
}

}  // namespace vmsight
