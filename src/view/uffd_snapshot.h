// live-snap:uffd - lazy copy-on-write of guest RAM.
//
//   take     the vCPUs stand; guest RAM is write-protected; they run on
//   view     a guard (undo/guard.h) copies each page before the guest's first write to it;
//            a reader takes the copy if there is one, else the live page
//   end      the protection is taken back; the registration stays for the next snapshot
//
// If the guard ends, the kernel takes back everything at once; it ends when we do.
#pragma once

#include <functional>
#include <memory>

#include "halt/vcpu_threads.h"
#include "inject/copy_store.h"
#include "inject/write_protect.h"
#include "undo/guard.h"
#include "view/cached_memory.h"
#include "view/process_reads.h"
#include "view/snapshot_memory.h"
#include "vmsight/halt.h"

namespace vmsight {

class UffdSnapshotter final : public Snapshotter {
 public:
  /// `vm` must outlive it. Changes nothing yet.
  static Result<std::unique_ptr<UffdSnapshotter>> open(
      const Vm& vm, WriteProtectSupport support,
      std::chrono::milliseconds max_halt = default_max_halt);
  Result<Snapshot> take() override;
  /// Copies made for this view.
  std::uint32_t copies() const { return store_->count(); }
  /// The process that holds the userfaultfd; -1 before the first snapshot.
  pid_t guard() const { return guard_ ? guard_->pid() : -1; }

 private:
  class Reads;

  UffdSnapshotter(const Vm& vm, WriteProtectSupport support, std::chrono::milliseconds max_halt)
      : vm_(vm), support_(support), max_halt_(max_halt) {}
  bool must_record_holes() const;
  nlohmann::json config(const VcpuThreads& threads) const;
  Result<void> start();
  Result<void> protect();
  void end();

  const Vm& vm_;
  WriteProtectSupport support_;
  std::chrono::milliseconds max_halt_;
  std::unique_ptr<CopyStore> store_;
  std::unique_ptr<Guard> guard_;
  Reads* reads_ = nullptr;  // owned by memory_
  std::unique_ptr<CachedMemory> memory_;
};

}  // namespace vmsight
