// A source of pages for CachedMemory that has them from a ByteMemory.
#pragma once

#include <set>

#include "support/byte_memory.h"
#include "view/page_source.h"

namespace vmsight::test {

/// Records its batches and can be told to fail. `memory` must outlive it.
class ByteSource final : public PageSource {
 public:
  explicit ByteSource(ByteMemory& memory) : memory_(memory) {}

  std::vector<std::vector<GuestPhys>> batches;
  std::set<GuestPhys> bad;
  std::optional<Error> failure;

  const RamMap& ram() const override { return memory_.ram(); }
  Result<void> read(std::span<FreshRead> reads) override {
    if (failure) return *failure;
    batches.emplace_back();
    for (FreshRead& read : reads) {
      batches.back().push_back(read.from);
      read.ok = !bad.contains(read.from) && read_phys(memory_, read.from, read.into);
    }
    return {};
  }
  Result<std::vector<PhysRange>> populated() override { return memory_.populated(); }
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override {
    return memory_.scan(from, into);
  }
  Result<void> health() override { return {}; }
  std::uint64_t calls() const override { return batches.size(); }
  bool is_live() const override { return true; }
  bool is_passive() const override { return true; }
  std::string_view technique() const override { return "fake"; }

 private:
  ByteMemory& memory_;
};

}  // namespace vmsight::test
