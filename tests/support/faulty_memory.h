// A decorator that makes any guest memory go wrong, the same way for the same seed: missing
// pages, corrupt words, contents that differ at each reading, a VM that dies in the middle.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>

#include "base/memory_decorator.h"

namespace vmsight::test {

struct FaultPolicy {
  std::uint64_t seed = 1;
  // Chances, each of one page, in 1/65536.
  std::uint32_t missing = 0;     // the page cannot be read
  std::uint32_t corrupt = 0;     // some of its words are changed; the same at each reading
  std::uint32_t unstable = 0;    // some of its words are changed, others at each reading
  std::uint64_t gone_after = 0;  // the VM is gone from this call of page() on; 0 = never
  /// Called last, with each page that was read; may change it. For a fault in a known place.
  std::function<void(GuestPhys page, std::span<std::byte> bytes)> change{};
};

class FaultyMemory final : public MemoryDecorator {
 public:
  /// `inner` must outlive it.
  FaultyMemory(GuestMemory& inner, FaultPolicy policy)
      : MemoryDecorator(inner), policy_(std::move(policy)) {}

  std::uint64_t page_calls() const { return page_calls_; }

  const std::byte* page(GuestPhys address) override;
  Result<void> read_fresh(std::span<FreshRead> reads) override;
  void prefetch(std::span<const GuestPhys>) override {}  // pages that fail must fail one by one
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override;
  Result<void> health() override;
  bool is_live() const override { return inner_->is_live() || policy_.unstable > 0; }

 private:
  Result<void> do_refresh() override;
  void do_forget(std::span<const GuestPhys> pages) override;

  using Page = std::unique_ptr<std::byte[]>;
  bool gone() const { return policy_.gone_after != 0 && page_calls_ >= policy_.gone_after; }
  bool missing(GuestPhys page) const;
  void spoil(GuestPhys page, std::span<std::byte> bytes);

  FaultPolicy policy_;
  std::uint64_t page_calls_ = 0;
  std::uint64_t readings_ = 0;
  std::unordered_map<std::uint64_t, Page> pages_;  // by pfn: spoilt copies of this view
};

}  // namespace vmsight::test
