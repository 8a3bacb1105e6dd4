#include "support/byte_memory.h"

#include <algorithm>

namespace vmsight::test {

ByteMemory::ByteMemory(const std::vector<ByteRange>& ranges) {
  std::vector<RamRange> all;
  for (const ByteRange& range : ranges) all.push_back({.start = range.start, .size = range.size});
  auto map = RamMap::from(std::move(all));
  VMSIGHT_CHECK(map.has_value());
  ram_ = *std::move(map);
  for (const RamRange& range : ram_.ranges()) {
    void* start = ::mmap(nullptr, range.size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    VMSIGHT_CHECK(start != MAP_FAILED);
    ranges_.emplace_back(start, range.size);
  }
}

std::span<std::byte> ByteMemory::at(GuestPhys address) {
  const RamRange* range = ram_.find(address);
  if (range == nullptr) return {};
  const auto index = static_cast<std::size_t>(range - ram_.ranges().data());
  return ranges_[index].mutable_bytes().subspan(address - range->start);
}

void ByteMemory::write(GuestPhys to, std::span<const std::byte> bytes) {
  const std::span<std::byte> target = at(to);
  VMSIGHT_CHECK(target.size() >= bytes.size());
  std::memcpy(target.data(), bytes.data(), bytes.size());
}

const std::byte* ByteMemory::page(GuestPhys address) {
  const std::span<std::byte> bytes = at(address.page());
  if (bytes.empty()) return nullptr;
  touched_.insert(address.pfn());
  return bytes.data();
}

Result<void> ByteMemory::read_fresh(std::span<FreshRead> reads) {
  for (FreshRead& read : reads) {
    read.ok = read.from.page_offset() + read.into.size() <= page_size &&
              read_phys(*this, read.from, read.into);
  }
  return {};
}

Result<void> ByteMemory::do_refresh() {
  touched_.clear();
  return health();
}

Result<std::vector<PhysRange>> ByteMemory::populated() {
  std::vector<PhysRange> all;
  for (const RamRange& range : ram_.ranges()) all.push_back({range.start, range.size});
  return all;
}

Result<void> ByteMemory::scan(GuestPhys from, std::span<std::byte> into) {
  while (!into.empty()) {
    const std::span<std::byte> bytes = at(from);
    if (bytes.empty()) {
      return Error{.code = ErrorCode::fault,
                   .message = fmt::format("read {}: not backed by RAM", from),
                   .address = from.raw()};
    }
    const std::size_t length = std::min(bytes.size(), into.size());
    std::memcpy(into.data(), bytes.data(), length);
    into = into.subspan(length);
    from = from + length;
  }
  return {};
}

Result<void> ByteMemory::health() {
  if (failure_) return *failure_;
  return {};
}

MemoryCounters ByteMemory::counters() const {
  return {.bytes = touched_.size() * page_size, .pages = touched_.size(), .calls = 0};
}

}  // namespace vmsight::test
