#include "view/live_snap.h"

#include "view/fork_snapshot.h"
#include "view/uffd_snapshot.h"

namespace vmsight {

Result<std::unique_ptr<GuestMemory>> open_live_snap_uffd(const Vm& vm) {
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> live, open_live_read(vm));
  VMSIGHT_TRY(const WriteProtectSupport support, check_write_protect(vm));
  VMSIGHT_TRY(std::unique_ptr<Halter> halter, open_ptrace_halter(vm));
  VMSIGHT_TRY(std::unique_ptr<Snapshotter> snapshotter,
              UffdSnapshotter::open(vm, std::move(halter), support));
  return std::unique_ptr<GuestMemory>(
      std::make_unique<SnapshotMemory>("live-snap:uffd", std::move(live), std::move(snapshotter)));
}

Result<std::unique_ptr<GuestMemory>> open_live_snap_fork(const Vm& vm) {
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> live, open_live_read(vm));
  VMSIGHT_TRY_VOID(check_fork(vm));
  VMSIGHT_TRY(std::unique_ptr<Halter> halter, open_ptrace_halter(vm));
  VMSIGHT_TRY(std::unique_ptr<Snapshotter> snapshotter,
              ForkSnapshotter::open(vm, std::move(halter)));
  return std::unique_ptr<GuestMemory>(
      std::make_unique<SnapshotMemory>("live-snap:fork", std::move(live), std::move(snapshotter)));
}

}  // namespace vmsight
