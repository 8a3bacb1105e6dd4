#include "view/read_plan.h"

#include <algorithm>
#include <cstring>

namespace vmsight {

ReadPlan::ReadPlan(std::span<FreshRead> reads, const RamMap& ram, const Limits& limits) {
  order_.reserve(reads.size());
  for (FreshRead& read : reads) {
    read.ok = false;
    order_.push_back(&read);
  }
  std::sort(order_.begin(), order_.end(),
            [](const FreshRead* a, const FreshRead* b) { return a->from < b->from; });
  const RamRange* range = nullptr;
  for (std::size_t i = 0; i < order_.size(); ++i) {
    const FreshRead& read = *order_[i];
    const std::uint64_t mask = limits.unit - 1;
    const GuestPhys start(read.from.raw() & ~mask);
    const GuestPhys end((read.from.raw() + read.into.size() + mask) & ~mask);
    const bool same_range = range != nullptr && read.from < range->end();
    if (!runs_.empty() && same_range) {
      Run& run = runs_.back();
      const GuestPhys reached = std::max(run.start + run.size, end);
      if (start <= run.start + run.size + limits.max_gap &&
          reached - run.start <= limits.max_size) {
        run.size = reached - run.start;
        ++run.count;
        continue;
      }
    }
    if (!same_range) range = ram.find(read.from);
    VMSIGHT_CHECK(range != nullptr);
    runs_.push_back({start, end - start, i, 1});
  }
}

void ReadPlan::deliver(const Run& run, std::span<const std::byte> bytes) {
  for (std::size_t i = run.first; i < run.first + run.count; ++i) {
    FreshRead& read = *order_[i];
    const std::uint64_t offset = read.from - run.start;
    if (offset > bytes.size() || bytes.size() - offset < read.into.size()) continue;
    std::memcpy(read.into.data(), bytes.data() + offset, read.into.size());
    read.ok = true;
  }
}

}  // namespace vmsight
