#include "view/copy_snapshot.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "base/clock.h"
#include "view/lent_memory.h"
#include "vmsight/view.h"

namespace vmsight {

Result<std::unique_ptr<CopySnapshotter>> CopySnapshotter::open(const Vm& vm,
                                                               std::unique_ptr<GuestMemory> live,
                                                               std::unique_ptr<Halter> halter) {
  std::unique_ptr<CopySnapshotter> self(new CopySnapshotter(std::move(live), std::move(halter)));
  VMSIGHT_TRY_VOID(self->allot(vm.ram()));
  VMSIGHT_TRY_VOID(self->make_memory(vm));
  return self;
}

/// Only address space; the file's pages come with the first copy.
Result<void> CopySnapshotter::allot(const RamMap& ram) {
  const std::uint64_t size = ram.total_bytes();
  file_ = UniqueFd(::memfd_create("vmsight-copy", MFD_CLOEXEC));
  if (!file_) return os_error(errno, "make a memfd");
  if (::ftruncate(file_.get(), static_cast<off_t>(size)) != 0) {
    return os_error(errno, "size a memfd");
  }
  void* start = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
  if (start == MAP_FAILED) return os_error(errno, "map a memfd");
  mapping_ = Mapping(start, size);
  std::uint64_t offset = 0;
  for (const RamRange& range : ram.ranges()) {
    std::byte* host = mapping_.mutable_bytes().data() + offset;
    places_.push_back({range.start, range.size, offset, host});
    offset += range.size;
  }
  return {};
}

Result<void> CopySnapshotter::make_memory(const Vm& vm) {
  MappedMemory::Parts parts{.technique = "halt-snap:copy", .live = false, .ram = vm.ram()};
  const int fd = ::fcntl(file_.get(), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return os_error(errno, "duplicate a descriptor");
  const int own = parts.files.own(UniqueFd(fd));
  for (const Place& place : places_) {
    parts.ranges.push_back({place.start, place.size, place.host});
    parts.files.add({place.start, place.size, place.size, place.offset, own});
  }
  parts.alive = [&vm] { return vm.check_alive(); };
  VMSIGHT_TRY(memory_, MappedMemory::make(std::move(parts)));
  return {};
}

Result<Snapshot> CopySnapshotter::take() {
  const Stopwatch pause;
  VMSIGHT_TRY(Paused paused, halter_->halt());
  const auto copied = copy();
  const auto resumed = paused.resume();
  const std::uint64_t pause_ns = pause.elapsed_ns();
  if (!copied) return copied.error();
  VMSIGHT_TRY_VOID(resumed);
  VMSIGHT_TRY_VOID(memory_->refresh());
  return Snapshot{.memory = std::make_unique<LentMemory>(*memory_, [] {}),
                  .pause_ns = pause_ns,
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
  for (const PhysRange& run : populated) {
    const GuestPhys from = std::max(run.start, at);
    const GuestPhys to = std::min(run.start + run.size, place.start + place.size);
    if (from >= to) continue;
    VMSIGHT_TRY_VOID(clear(place, at, from));
    VMSIGHT_TRY_VOID(live_->scan(from, {place.host + (from - place.start), to - from}));
    bytes += to - from;
    at = to;
  }
  VMSIGHT_TRY_VOID(clear(place, at, place.start + place.size));
  return bytes;
}

/// What the guest no longer has (a balloon took it) must not show the snapshot before.
Result<void> CopySnapshotter::clear(const Place& place, GuestPhys from, GuestPhys to) const {
  for (const PhysRange& old : filled_) {
    const GuestPhys start = std::max(old.start, from);
    const GuestPhys end = std::min(old.start + old.size, to);
    if (start >= end) continue;
    const auto offset = static_cast<off_t>(place.offset + (start - place.start));
    if (::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                    static_cast<off_t>(end - start)) != 0) {
      return os_error(errno, "empty a memfd");
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
