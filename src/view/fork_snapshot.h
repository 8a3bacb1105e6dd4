// live-snap:fork - a copy of the QEMU process, made while the vCPUs stand, read while they run.
#pragma once

#include <memory>

#include "undo/guard.h"
#include "view/cached_memory.h"
#include "view/process_reads.h"
#include "view/snapshot_memory.h"
#include "vmsight/halt.h"

namespace vmsight {

/// unsupported if guest RAM is shared: a copy of the process would see what the guest writes.
/// permission if the VM's process cannot be traced. Changes nothing.
Result<void> check_fork(const Vm& vm);

class ForkSnapshotter final : public Snapshotter {
 public:
  /// `vm` must outlive it. Changes nothing yet.
  static Result<std::unique_ptr<ForkSnapshotter>> open(
      const Vm& vm, std::chrono::milliseconds max_halt = default_max_halt);
  Result<Snapshot> take() override;
  /// The process that keeps the copy; -1 before the first snapshot.
  pid_t guard() const { return guard_ ? guard_->pid() : -1; }

 private:
  ForkSnapshotter(const Vm& vm, std::chrono::milliseconds max_halt)
      : vm_(vm), max_halt_(max_halt) {}
  Result<void> start();
  void end();

  const Vm& vm_;
  std::chrono::milliseconds max_halt_;
  std::unique_ptr<Guard> guard_;
  ProcessReads* reads_ = nullptr;  // owned by memory_
  std::unique_ptr<CachedMemory> memory_;
};

}  // namespace vmsight
