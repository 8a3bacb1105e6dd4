// live-snap:fork - a copy of the QEMU process, made while the vCPUs stand, read while they run.
#pragma once

#include <memory>

#include "view/cached_memory.h"
#include "view/process_reads.h"
#include "view/snapshot_memory.h"
#include "vm/attendant.h"
#include "vm/journal.h"
#include "vmsight/halt.h"

namespace vmsight {

/// unsupported if guest RAM is shared: a copy of the process would see what the guest writes.
/// permission if the VM's process cannot be traced. Changes nothing.
Result<void> check_fork(const Vm& vm);

class ForkSnapshotter final : public Snapshotter {
 public:
  /// `vm` must outlive it. Changes nothing yet.
  static Result<std::unique_ptr<ForkSnapshotter>> open(const Vm& vm,
                                                       std::unique_ptr<Halter> halter);
  Result<Snapshot> take() override;
  /// The process that keeps the copy; -1 before the first snapshot.
  pid_t attendant() const { return attendant_ ? attendant_->pid() : -1; }

 private:
  ForkSnapshotter(const Vm& vm, std::unique_ptr<Halter> halter)
      : vm_(vm), halter_(std::move(halter)) {}
  Result<void> start();
  void end();

  const Vm& vm_;
  std::unique_ptr<Halter> halter_;
  std::unique_ptr<Attendant> attendant_;
  JournalEntry entry_;             // the attendant writes it before a copy, and removes it after
  ProcessReads* reads_ = nullptr;  // owned by memory_
  std::unique_ptr<CachedMemory> memory_;
};

}  // namespace vmsight
