#include "view/mapped_memory.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmsight {

Result<std::unique_ptr<MappedMemory>> MappedMemory::make(Parts parts) {
  std::unique_ptr<MappedMemory> memory(new MappedMemory);
  std::sort(parts.ranges.begin(), parts.ranges.end(),
            [](const MappedRange& a, const MappedRange& b) { return a.start < b.start; });
  std::uint64_t pages = 0;
  for (const MappedRange& range : parts.ranges) {
    VMSIGHT_CHECK(range.start.page_offset() == 0 && range.size % page_size == 0);
    memory->runs_.push_back({range.start, range.size, range.host, range.zeros ? 0 : ~0ULL, pages});
    pages += range.size >> page_shift;
  }
  VMSIGHT_TRY(memory->touched_, LazyArray<std::uint64_t>::make(pages / 64 + 1));
  memory->parts_ = std::move(parts);
  return memory;
}

const std::byte* MappedMemory::page(GuestPhys address) {
  const Run* run = find_run(address);
  if (run == nullptr) return nullptr;
  const std::uint64_t offset = address.page() - run->start;
  touch(run->first + (offset >> page_shift));
  return run->host + (offset & run->mask);
}

const MappedMemory::Run* MappedMemory::find_run(GuestPhys address) {
  if (last_ < runs_.size() && address - runs_[last_].start < runs_[last_].size) [[likely]] {
    return &runs_[last_];
  }
  const auto after = std::upper_bound(runs_.begin(), runs_.end(), address,
                                      [](GuestPhys a, const Run& run) { return a < run.start; });
  if (after == runs_.begin()) return nullptr;
  const Run& run = *std::prev(after);
  if (address - run.start >= run.size) return nullptr;
  last_ = static_cast<std::size_t>(&run - runs_.data());
  return &run;
}

void MappedMemory::touch(std::uint64_t number) {
  std::uint64_t& word = touched_[number / 64];
  const std::uint64_t bit = 1ULL << (number % 64);
  if ((word & bit) != 0) return;
  if (word == 0) touched_words_.push_back(number / 64);
  word |= bit;
  ++pages_;
}

Result<void> MappedMemory::read_fresh(std::span<FreshRead> reads) {
  for (FreshRead& read : reads) {
    read.ok = false;
    if (read.from.page_offset() + read.into.size() > page_size) continue;
    const std::byte* bytes = page(read.from);
    if (bytes == nullptr) continue;
    std::memcpy(read.into.data(), bytes + read.from.page_offset(), read.into.size());
    read.ok = true;
  }
  return {};
}

Result<void> MappedMemory::do_refresh() {
  for (const std::uint64_t word : touched_words_) touched_[word] = 0;
  touched_words_.clear();
  pages_ = 0;
  copied_ = 0;
  calls_before_ = parts_.files.calls();
  return {};
}

Result<std::vector<PhysRange>> MappedMemory::populated() {
  std::vector<PhysRange> found;
  VMSIGHT_TRY_VOID(parts_.files.populated(found));
  return found;
}

Result<void> MappedMemory::scan(GuestPhys from, std::span<std::byte> into) {
  VMSIGHT_TRY_VOID(parts_.files.scan(from, into));
  copied_ += into.size();
  return {};
}

Result<void> MappedMemory::health() {
  if (parts_.alive) VMSIGHT_TRY_VOID(parts_.alive());
  for (const GuardedMapping& mapping : parts_.mappings) {
    if (!mapping.damaged()) continue;
    return Error{.code = ErrorCode::os,
                 .message =
                     "read guest memory: its file was truncated, or a page of it was lost, "
                     "while it was read",
                 .os_errno = EIO};
  }
  return {};
}

MemoryCounters MappedMemory::counters() const {
  return {.bytes = pages_ * page_size + copied_,
          .pages = pages_,
          .calls = parts_.files.calls() - calls_before_};
}

}  // namespace vmsight
