#include "view/live_snap.h"

#include "halt/vcpu_threads.h"
#include "view/fork_snapshot.h"
#include "view/uffd_snapshot.h"

namespace vmsight {
namespace {

/// The thread that makes the copy must run while the vCPUs stand.
Result<void> check_vcpus_known(const Vm& vm) {
  VMSIGHT_TRY(const VcpuThreads threads, find_vcpu_threads(vm.info()));
  if (!threads.others.empty()) return {};
  return Error{.code = ErrorCode::unsupported,
               .message = "copy the VM's process: its vCPU threads cannot be told from others",
               .hint = fmt::format(
                   "{}; QEMU names its threads with -name debug-threads=on",
                   vm.monitor_note().empty() ? "there is no monitor to ask" : vm.monitor_note())};
}

}  // namespace

Result<std::unique_ptr<GuestMemory>> open_live_snap_uffd(const Vm& vm,
                                                         std::chrono::milliseconds max_halt) {
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> live, open_live_read(vm));
  VMSIGHT_TRY(const WriteProtectSupport support, check_write_protect(vm));
  VMSIGHT_TRY(std::unique_ptr<Snapshotter> snapshotter,
              UffdSnapshotter::open(vm, support, max_halt));
  return std::unique_ptr<GuestMemory>(std::make_unique<SnapshotMemory>(
      "live-snap:uffd", Taken::while_running, std::move(live), std::move(snapshotter)));
}

Result<std::unique_ptr<GuestMemory>> open_live_snap_fork(const Vm& vm,
                                                         std::chrono::milliseconds max_halt) {
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> live, open_live_read(vm));
  VMSIGHT_TRY_VOID(check_fork(vm));
  VMSIGHT_TRY_VOID(check_vcpus_known(vm));
  VMSIGHT_TRY(std::unique_ptr<Snapshotter> snapshotter, ForkSnapshotter::open(vm, max_halt));
  return std::unique_ptr<GuestMemory>(std::make_unique<SnapshotMemory>(
      "live-snap:fork", Taken::while_running, std::move(live), std::move(snapshotter)));
}

}  // namespace vmsight
