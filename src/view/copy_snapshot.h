// halt-snap:copy: the guest is halted while all of its populated RAM is copied.
//
// The copy lies in memory of ours that is kept from view to view. It is allocated before the guest
// is halted, in huge pages where the host has them; holes of the guest's RAM stay holes of it, which
// read as zeros.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "view/mapped_memory.h"
#include "view/paused_memory.h"
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
  Result<ReadRights> prepare() override { return prepare_halted(*live_, *halter_); }

 private:
  CopySnapshotter(std::unique_ptr<GuestMemory> live, std::unique_ptr<Halter> halter)
      : live_(std::move(live)), halter_(std::move(halter)) {}
  /// A range of guest RAM at our addresses.
  struct Place {
    GuestPhys start;
    std::uint64_t size = 0;  // bytes
    std::byte* host = nullptr;
  };
  Result<void> allot(const RamMap& ram);
  Result<void> make_memory(const Vm& vm);
  static std::vector<PhysRange> within(const Place& place, const std::vector<PhysRange>& ranges);
  static std::byte* host_of(const Place& place, GuestPhys address) {
    return place.host + (address - place.start);
  }
  Result<void> make_room();
  Result<std::uint64_t> copy();
  Result<std::uint64_t> copy_into(const Place& place, const std::vector<PhysRange>& populated);
  Result<void> clear(const Place& place, GuestPhys from, GuestPhys to) const;

  std::unique_ptr<GuestMemory> live_;
  std::unique_ptr<Halter> halter_;
  Mapping mapping_;
  std::vector<Place> places_;
  std::unique_ptr<MappedMemory> memory_;
  std::vector<PhysRange> filled_;  // of the snapshot before
};

/// halt-snap:copy of live-read, halted by ptrace.
Result<std::unique_ptr<GuestMemory>> open_copy_snapshot(const Vm& vm,
                                                        std::chrono::milliseconds max_halt);

}  // namespace vmsight
