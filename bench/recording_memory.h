// A decorator that notes which pages a reader touched, so that the cost of a state can be
// compared with the cost of copying just those pages.
#pragma once

#include <algorithm>
#include <unordered_set>
#include <vector>

#include "vmsight/memory.h"

namespace vmsight::bench {

class RecordingMemory final : public GuestMemory {
 public:
  explicit RecordingMemory(GuestMemory& inner) : inner_(inner) {}

  std::vector<GuestPhys> touched() const {
    std::vector<GuestPhys> pages;
    pages.reserve(pfns_.size());
    for (std::uint64_t pfn : pfns_) pages.emplace_back(pfn << page_shift);
    std::sort(pages.begin(), pages.end());
    return pages;
  }

  const RamMap& ram() const override { return inner_.ram(); }
  const std::byte* page(GuestPhys address) override {
    const std::byte* bytes = inner_.page(address);
    if (bytes != nullptr) pfns_.insert(address.pfn());
    return bytes;
  }
  void prefetch(std::span<const GuestPhys> pages) override { inner_.prefetch(pages); }
  Result<void> read_fresh(std::span<FreshRead> reads) override { return inner_.read_fresh(reads); }
  Result<void> refresh() override {
    pfns_.clear();
    return inner_.refresh();
  }
  void forget(std::span<const GuestPhys> pages) override { inner_.forget(pages); }
  Result<std::vector<PhysRange>> populated() override { return inner_.populated(); }
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override {
    return inner_.scan(from, into);
  }
  Result<void> health() override { return inner_.health(); }
  MemoryCounters counters() const override { return inner_.counters(); }
  bool is_live() const override { return inner_.is_live(); }
  std::string_view technique() const override { return inner_.technique(); }

 private:
  GuestMemory& inner_;
  std::unordered_set<std::uint64_t> pfns_;
};

}  // namespace vmsight::bench
