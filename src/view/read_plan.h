// Which runs of guest memory to ask for where a question costs far more than the bytes in its
// answer: reads that are neighbours become one run, and a small gap between two is read along.
//
//   reads    [==]   [==][==]            [==]
//   runs     [==============]           [==]
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "vmsight/memory.h"

namespace vmsight {

class ReadPlan {
 public:
  struct Limits {
    std::uint64_t max_gap = 0;           // bytes that are worth reading along
    std::uint64_t max_size = page_size;  // of a run, unless one read is larger
    std::uint64_t unit = 1;              // start and size of a run are multiples; divides a page
  };
  struct Run {
    GuestPhys start;
    std::uint64_t size = 0;
    std::size_t first = 0, count = 0;  // of the plan's own order of reads
  };

  /// `reads` must be as PageSource::read wants them, and outlive the plan. A run never leaves the
  /// RAM range that it begins in: what lies beyond may be a device.
  ReadPlan(std::span<FreshRead> reads, const RamMap& ram, const Limits& limits);

  /// Ascending.
  std::span<const Run> runs() const { return runs_; }

  /// Gives each read of the run its bytes and sets `ok`. `bytes` are the run's; if they are fewer
  /// than its size, the reads beyond stay unread.
  void deliver(const Run& run, std::span<const std::byte> bytes);

 private:
  std::vector<FreshRead*> order_;  // by address
  std::vector<Run> runs_;
};

}  // namespace vmsight
