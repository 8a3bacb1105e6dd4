// Numbers the pages of guest RAM densely, so that a table of them has no gap for the PCI hole.
//
//   guest-physical   0 ..... 3 GiB     4 GiB ..... 6 GiB
//   page number      0 ..... 786432 -> 786432 .... 1310720
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "vmsight/memory.h"

namespace vmsight {

class PageIndex {
 public:
  PageIndex() = default;
  /// unsupported if the RAM has more than 2^32 - 2 pages (16 TiB).
  static Result<PageIndex> from(const RamMap& ram);

  /// Number of pages.
  std::uint32_t size() const { return size_; }

  /// The number of the page that holds this address; nullopt if it is not RAM.
  std::optional<std::uint32_t> find(GuestPhys address) {
    if (last_ < runs_.size()) [[likely]] {
      const Run& run = runs_[last_];
      const std::uint64_t offset = address - run.start;
      if (offset < run.size) [[likely]] {
        return run.first + static_cast<std::uint32_t>(offset >> page_shift);
      }
    }
    return find_slow(address);
  }

  /// The inverse. `number` must be less than size().
  GuestPhys page(std::uint32_t number) const;

 private:
  struct Run {
    GuestPhys start;
    std::uint64_t size = 0;
    std::uint32_t first = 0;
  };
  std::optional<std::uint32_t> find_slow(GuestPhys address);

  std::vector<Run> runs_;
  std::size_t last_ = 0;  // most accesses stay in one run
  std::uint32_t size_ = 0;
};

}  // namespace vmsight
