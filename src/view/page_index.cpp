#include "view/page_index.h"

#include <algorithm>

namespace vmsight {

Result<PageIndex> PageIndex::from(const RamMap& ram) {
  PageIndex index;
  std::uint64_t pages = 0;
  for (const RamRange& range : ram.ranges()) {
    index.runs_.push_back({range.start, range.size, static_cast<std::uint32_t>(pages)});
    pages += range.size >> page_shift;
    if (pages >= UINT32_MAX) {
      return Error{.code = ErrorCode::unsupported,
                   .message = "index guest RAM: more than 16 TiB is not supported"};
    }
  }
  index.size_ = static_cast<std::uint32_t>(pages);
  return index;
}

std::optional<std::uint32_t> PageIndex::find_slow(GuestPhys address) {
  auto after = std::upper_bound(runs_.begin(), runs_.end(), address,
                                [](GuestPhys a, const Run& run) { return a < run.start; });
  if (after == runs_.begin()) return std::nullopt;
  const Run& run = *std::prev(after);
  const std::uint64_t offset = address - run.start;
  if (offset >= run.size) return std::nullopt;
  last_ = static_cast<std::size_t>(std::prev(after) - runs_.begin());
  return run.first + static_cast<std::uint32_t>(offset >> page_shift);
}

GuestPhys PageIndex::page(std::uint32_t number) const {
  VMSIGHT_CHECK(number < size_);
  auto after = std::upper_bound(runs_.begin(), runs_.end(), number,
                                [](std::uint32_t n, const Run& run) { return n < run.first; });
  const Run& run = *std::prev(after);
  return run.start + (static_cast<std::uint64_t>(number - run.first) << page_shift);
}

}  // namespace vmsight
