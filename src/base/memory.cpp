#include "vmsight/memory.h"

#include <algorithm>
#include <cstring>

namespace vmsight {

Result<RamMap> RamMap::from(std::vector<RamRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const RamRange& a, const RamRange& b) { return a.start < b.start; });
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const RamRange& range = ranges[i];
    if (range.size == 0 || range.size % page_size != 0 || range.start.page_offset() != 0 ||
        !range.start.checked_add(range.size)) {
      return Error{
          .code = ErrorCode::bad_data,
          .message = fmt::format("RAM range at {}: size {:#x} is empty, unaligned or wraps",
                                 range.start, range.size)};
    }
    if (i > 0 && ranges[i - 1].end() > range.start) {
      return Error{.code = ErrorCode::bad_data,
                   .message = fmt::format("RAM ranges at {} and {} overlap", ranges[i - 1].start,
                                          range.start)};
    }
  }
  RamMap map;
  map.ranges_ = std::move(ranges);
  return map;
}

const RamRange* RamMap::find(GuestPhys address) const {
  auto after = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                [](GuestPhys a, const RamRange& r) { return a < r.start; });
  if (after == ranges_.begin()) return nullptr;
  const RamRange& range = *std::prev(after);
  return address < range.end() ? &range : nullptr;
}

std::uint64_t RamMap::total_bytes() const {
  std::uint64_t total = 0;
  for (const RamRange& range : ranges_) total += range.size;
  return total;
}

bool read_phys(GuestMemory& memory, GuestPhys from, std::span<std::byte> into) {
  while (!into.empty()) {
    const std::byte* page = memory.page(from);
    if (page == nullptr) return false;
    const std::size_t offset = from.page_offset();
    const std::size_t length = std::min<std::size_t>(page_size - offset, into.size());
    std::memcpy(into.data(), page + offset, length);
    into = into.subspan(length);
    from = from + length;
  }
  return true;
}

}  // namespace vmsight
