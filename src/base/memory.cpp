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

std::size_t copy_phys(GuestMemory& memory, GuestPhys from, std::span<std::byte> into) {
  std::size_t done = 0;
  while (done < into.size()) {
    const GuestPhys at = from + done;
    const std::byte* page = memory.page(at);
    if (page == nullptr) break;
    const std::size_t length =
        std::min<std::size_t>(page_size - at.page_offset(), into.size() - done);
    std::memcpy(into.data() + done, page + at.page_offset(), length);
    done += length;
  }
  return done;
}

bool read_phys(GuestMemory& memory, GuestPhys from, std::span<std::byte> into) {
  return copy_phys(memory, from, into) == into.size();
}

}  // namespace vmsight
