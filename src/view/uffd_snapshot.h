// live-snap:uffd - lazy copy-on-write of guest RAM.
//
//   take     the vCPUs stand; guest RAM is write-protected; they run on
//   view     an attendant (vm/attendant.h) copies each page before the guest's first write to it;
//            a reader takes the copy if there is one, else the live page
//   end      the protection is taken back; the registration stays for the next snapshot
//
// If the attendant or we end, the kernel takes back everything at once.
#pragma once

#include <functional>
#include <memory>

#include "view/cached_memory.h"
#include "view/copy_store.h"
#include "view/process_reads.h"
#include "view/snapshot_memory.h"
#include "vm/attendant.h"
#include "vm/write_protect.h"
#include "vmsight/halt.h"

namespace vmsight {

class UffdSnapshotter final : public Snapshotter {
 public:
  /// `vm` must outlive it. Changes nothing yet.
  static Result<std::unique_ptr<UffdSnapshotter>> open(const Vm& vm, std::unique_ptr<Halter> halter,
                                                       WriteProtectSupport support);
  Result<Snapshot> take() override;
  /// Copies made for this view.
  std::uint32_t copies() const { return store_->count(); }
  /// The process that holds the userfaultfd; -1 before the first snapshot.
  pid_t attendant() const { return attendant_ ? attendant_->pid() : -1; }

 private:
  class Reads;

  UffdSnapshotter(const Vm& vm, std::unique_ptr<Halter> halter, WriteProtectSupport support)
      : vm_(vm), halter_(std::move(halter)), support_(support) {}
  bool must_record_holes() const;
  Result<void> start();
  Result<void> protect();
  void end();

  const Vm& vm_;
  std::unique_ptr<Halter> halter_;
  WriteProtectSupport support_;
  std::unique_ptr<CopyStore> store_;
  std::unique_ptr<Attendant> attendant_;
  Reads* reads_ = nullptr;  // owned by memory_
  std::unique_ptr<CachedMemory> memory_;
};

}  // namespace vmsight
