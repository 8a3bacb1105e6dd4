// A run of guest-physical memory, taken apart where RAM ranges meet.
#pragma once

#include <fmt/format.h>
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vmsight/memory.h"

namespace vmsight {

/// The error of reading where nothing is.
inline Error not_ram(GuestPhys at) {
  return {.code = ErrorCode::fault,
          .message = fmt::format("read {}: not backed by RAM", at),
          .address = at.raw()};
}

/// Calls `take(range, from, piece)` for each piece of at most `most` bytes, none of which leaves its
/// range. The first error ends it; fault where there is no RAM.
template <typename Take>
Result<void> for_each_ram_piece(const RamMap& ram, GuestPhys from, std::span<std::byte> into,
                                std::uint64_t most, Take take) {
  while (!into.empty()) {
    const RamRange* range = ram.find(from);
    if (range == nullptr) return not_ram(from);
    const auto piece =
        into.first(std::min<std::uint64_t>({into.size(), range->end() - from, most}));
    VMSIGHT_TRY_VOID(take(*range, from, piece));
    into = into.subspan(piece.size());
    from = from + piece.size();
  }
  return {};
}

}  // namespace vmsight
