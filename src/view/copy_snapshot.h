// halt-snap:copy: the guest is halted while all of its populated RAM is copied.
//
// The copy lies in a memfd of ours that is kept from view to view: pages are allocated once, and
// holes of the guest's RAM stay holes of it, which read as zeros.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "view/mapped_memory.h"
#include "view/snapshot_memory.h"
#include "vmsight/halt.h"
#include "vmsight/vm.h"

namespace vmsight {

class CopySnapshotter final : public Snapshotter {
 public:
  /// `live` is what is copied. `vm` must outlive the snapshotter.
  static Result<std::unique_ptr<CopySnapshotter>> open(const Vm& vm,
                                                       std::unique_ptr<GuestMemory> live,
                                                       std::unique_ptr<Halter> halter);
  /// The memory of a snapshot is valid until the next one is taken.
  Result<Snapshot> take() override;

 private:
  CopySnapshotter(std::unique_ptr<GuestMemory> live, std::unique_ptr<Halter> halter)
      : live_(std::move(live)), halter_(std::move(halter)) {}
  /// A range of guest RAM in the file, and at our addresses.
  struct Place {
    GuestPhys start;
    std::uint64_t size = 0, offset = 0;
    std::byte* host = nullptr;
  };
  Result<void> allot(const RamMap& ram);
  Result<void> make_memory(const Vm& vm);
  Result<std::uint64_t> copy();
  Result<std::uint64_t> copy_into(const Place& place, const std::vector<PhysRange>& populated);
  Result<void> clear(const Place& place, GuestPhys from, GuestPhys to) const;

  std::unique_ptr<GuestMemory> live_;
  std::unique_ptr<Halter> halter_;
  UniqueFd file_;
  Mapping mapping_;
  std::vector<Place> places_;
  std::unique_ptr<MappedMemory> memory_;
  std::vector<PhysRange> filled_;  // of the snapshot before
};

/// halt-snap:copy of live-read, halted by ptrace.
Result<std::unique_ptr<GuestMemory>> open_copy_snapshot(const Vm& vm,
                                                        std::chrono::milliseconds max_halt);

}  // namespace vmsight
