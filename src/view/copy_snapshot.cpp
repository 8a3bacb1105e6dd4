#include "view/copy_snapshot.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "base/memory_decorator.h"
#include "vmsight/view.h"

namespace vmsight {
namespace {

/// The copy, which has no file that could say what of it is populated.
class Copied final : public MemoryDecorator {
 public:
  Copied(GuestMemory& memory, const std::vector<PhysRange>& filled)
      : MemoryDecorator(memory), filled_(filled) {}
  Result<std::vector<PhysRange>> populated() override { return filled_; }
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override {
    if (read_phys(*inner_, from, into)) return {};
    return Error{.code = ErrorCode::fault,
                 .message = "scan a copy of guest RAM: outside of it",
                 .address = from.raw()};
  }

 private:
  const std::vector<PhysRange>& filled_;
};

}  // namespace

Result<std::unique_ptr<CopySnapshotter>> CopySnapshotter::open(const Vm& vm,
                                                               std::unique_ptr<GuestMemory> live,
                                                               std::unique_ptr<Halter> halter) {
  std::unique_ptr<CopySnapshotter> self(new CopySnapshotter(std::move(live), std::move(halter)));
  VMSIGHT_TRY_VOID(self->allot(vm.ram()));
  VMSIGHT_TRY_VOID(self->make_memory(vm));
  return self;
}

/// Only address space.
Result<void> CopySnapshotter::allot(const RamMap& ram) {
  const std::uint64_t size = ram.total_bytes();
  void* start = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return os_error(errno, "reserve address space for a copy of guest RAM");
  mapping_ = Mapping(start, size);
  // Only a wish: without huge pages the first copy takes longer.
  static_cast<void>(::madvise(start, size, MADV_HUGEPAGE));
  std::byte* host = mapping_.mutable_bytes().data();
  for (const RamRange& range : ram.ranges()) {
    places_.push_back({range.start, range.size, host});
    host += range.size;
  }
  return {};
}

Result<void> CopySnapshotter::make_memory(const Vm& vm) {
  MappedMemory::Parts parts{.technique = "halt-snap:copy", .live = false, .ram = vm.ram()};
  for (const Place& place : places_) {
    parts.ranges.push_back({place.start, place.size, place.host});
  }
  parts.alive = [&vm] { return vm.check_alive(); };
  VMSIGHT_TRY(memory_, MappedMemory::make(std::move(parts)));
  return {};
}

/// The parts of the ranges that lie in the place.
std::vector<PhysRange> CopySnapshotter::within(const Place& place,
                                               const std::vector<PhysRange>& ranges) {
  std::vector<PhysRange> found;
  for (const PhysRange& range : ranges) {
    const GuestPhys from = std::max(range.start, place.start);
    const GuestPhys to = std::min(range.start + range.size, place.start + place.size);
    if (from < to) found.push_back({from, to - from});
  }
  return found;
}

/// So that the guest does not wait for pages to be found and cleared.
Result<void> CopySnapshotter::make_room() {
  VMSIGHT_TRY(const std::vector<PhysRange> populated, live_->populated());
  for (const Place& place : places_) {
    for (const PhysRange& part : within(place, populated)) {
      if (::madvise(host_of(place, part.start), part.size, MADV_POPULATE_WRITE) == 0) continue;
      if (errno == EINVAL) return {};  // Linux before 5.14: pages come as they are written
      return os_error(errno, "find memory for a copy of guest RAM");
    }
  }
  return {};
}

Result<Snapshot> CopySnapshotter::take() {
  // Later copies find it made, but for what the guest has got since.
  if (filled_.empty()) VMSIGHT_TRY_VOID(make_room());
  VMSIGHT_TRY(Paused paused, halter_->halt());
  const auto copied = copy();
  const auto resumed = paused.resume();
  if (!copied) return copied.error();
  if (!resumed) return resumed.error();
  VMSIGHT_TRY_VOID(memory_->refresh());
  return Snapshot{.memory = std::make_unique<Copied>(*memory_, filled_),
                  .pause_ns = *resumed,
                  .bytes = *copied};
}

Result<std::uint64_t> CopySnapshotter::copy() {
  VMSIGHT_TRY(std::vector<PhysRange> populated, live_->populated());
  std::uint64_t bytes = 0;
  for (const Place& place : places_) {
    VMSIGHT_TRY(const std::uint64_t copied, copy_into(place, populated));
    bytes += copied;
  }
  filled_ = std::move(populated);
  return bytes;
}

Result<std::uint64_t> CopySnapshotter::copy_into(const Place& place,
                                                 const std::vector<PhysRange>& populated) {
  std::uint64_t bytes = 0;
  GuestPhys at = place.start;
  for (const PhysRange& run : within(place, populated)) {
    VMSIGHT_TRY_VOID(clear(place, at, run.start));
    VMSIGHT_TRY_VOID(live_->scan(run.start, {host_of(place, run.start), run.size}));
    bytes += run.size;
    at = run.start + run.size;
  }
  VMSIGHT_TRY_VOID(clear(place, at, place.start + place.size));
  return bytes;
}

/// What the guest no longer has (a balloon took it) must not show the snapshot before.
Result<void> CopySnapshotter::clear(const Place& place, GuestPhys from, GuestPhys to) const {
  auto old = std::partition_point(filled_.begin(), filled_.end(), [&](const PhysRange& range) {
    return range.start + range.size <= from;
  });
  for (; old != filled_.end() && old->start < to; ++old) {
    const GuestPhys start = std::max(old->start, from);
    const GuestPhys end = std::min(old->start + old->size, to);
    if (::madvise(host_of(place, start), end - start, MADV_DONTNEED) != 0) {
      return os_error(errno, "empty a copy of guest RAM");
    }
  }
  return {};
}

Result<std::unique_ptr<GuestMemory>> open_copy_snapshot(const Vm& vm,
                                                        std::chrono::milliseconds max_halt) {
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> live, open_live_read(vm));
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> copied, open_live_read(vm));
  VMSIGHT_TRY(std::unique_ptr<Halter> halter, open_ptrace_halter(vm, max_halt));
  VMSIGHT_TRY(std::unique_ptr<CopySnapshotter> snapshotter,
              CopySnapshotter::open(vm, std::move(copied), std::move(halter)));
  return std::unique_ptr<GuestMemory>(std::make_unique<SnapshotMemory>(
      "halt-snap:copy", Taken::while_halted, std::move(live), std::move(snapshotter)));
}

}  // namespace vmsight
