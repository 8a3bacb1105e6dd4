// A decorator that notes which pages a reader touched, so that the cost of a state can be
// compared with the cost of copying just those pages.
#pragma once

#include <algorithm>
#include <unordered_set>
#include <vector>

#include "base/memory_decorator.h"

namespace vmsight::bench {

class RecordingMemory final : public MemoryDecorator {
 public:
  using MemoryDecorator::MemoryDecorator;

  std::vector<GuestPhys> touched() const {
    std::vector<GuestPhys> pages;
    pages.reserve(pfns_.size());
    for (std::uint64_t pfn : pfns_) pages.emplace_back(pfn << page_shift);
    std::sort(pages.begin(), pages.end());
    return pages;
  }

  const std::byte* page(GuestPhys address) override {
    const std::byte* bytes = inner_->page(address);
    if (bytes != nullptr) pfns_.insert(address.pfn());
    return bytes;
  }

 private:
  Result<void> do_refresh() override {
    pfns_.clear();
    return inner_->refresh();
  }

  std::unordered_set<std::uint64_t> pfns_;
};

}  // namespace vmsight::bench
