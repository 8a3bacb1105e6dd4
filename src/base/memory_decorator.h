// Guest memory that is somebody else's but for what a derived class changes of it.
#pragma once

#include "vmsight/memory.h"

namespace vmsight {

/// Forwards every call to `inner`, which must outlive it.
class MemoryDecorator : public GuestMemory {
 public:
  explicit MemoryDecorator(GuestMemory& inner) : inner_(&inner) {}

  const RamMap& ram() const override { return inner_->ram(); }
  const std::byte* page(GuestPhys address) override { return inner_->page(address); }
  void prefetch(std::span<const GuestPhys> pages) override { inner_->prefetch(pages); }
  Result<void> read_fresh(std::span<FreshRead> reads) override { return inner_->read_fresh(reads); }
  Result<std::vector<PhysRange>> populated() override { return inner_->populated(); }
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override {
    return inner_->scan(from, into);
  }
  Result<void> health() override { return inner_->health(); }
  MemoryCounters counters() const override { return inner_->counters(); }
  bool is_live() const override { return inner_->is_live(); }
  ViewNature nature() const override { return inner_->nature(); }
  Result<ReadRights> prepare() override { return inner_->prepare(); }
  std::string_view technique() const override { return inner_->technique(); }

 protected:
  GuestMemory* inner_;

 private:
  Result<void> do_refresh() override { return inner_->refresh(); }
  Result<void> do_end_view() override { return inner_->end_view(); }
  void do_forget(std::span<const GuestPhys> pages) override { inner_->forget(pages); }
};

/// Memory of a guest that runs, read as if it stood: nothing is looked at twice by who reads it. Whether it did is found out
/// afterwards, or it is not meant to be.
class AsIfHalted final : public MemoryDecorator {
 public:
  using MemoryDecorator::MemoryDecorator;
  bool is_live() const override { return false; }
};

}  // namespace vmsight
