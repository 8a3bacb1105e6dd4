// Guest memory that is mapped into our process: shared RAM of a live VM, or an image.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "view/file_runs.h"
#include "view/lazy_array.h"
#include "view/page_index.h"
#include "view/sigbus_guard.h"
#include "vmsight/memory.h"

namespace vmsight {

/// A run of guest RAM at our own addresses.
struct MappedRange {
  GuestPhys start;
  std::uint64_t size = 0;           // bytes, a multiple of the page size
  const std::byte* host = nullptr;  // of its first byte; need not be aligned
  bool zeros = false;               // `host` is one page, and every page of the range is it
};

class MappedMemory final : public GuestMemory {
 public:
  struct Parts {
    std::string_view technique;
    bool live = false;
    RamMap ram;
    std::vector<MappedRange> ranges;                    // not overlapping
    std::vector<GuardedMapping> mappings;               // what the ranges point into
    std::vector<std::unique_ptr<std::byte[]>> buffers;  // the same
    FileRuns files;                       // the same memory, for scan() and populated()
    std::function<Result<void>()> alive;  // health of the VM behind it
  };
  static Result<std::unique_ptr<MappedMemory>> make(Parts parts);

  const RamMap& ram() const override { return parts_.ram; }
  const std::byte* page(GuestPhys address) override;
  void prefetch(std::span<const GuestPhys>) override {}  // a page fault each, asked for or not
  Result<void> read_fresh(std::span<FreshRead> reads) override;
  Result<std::vector<PhysRange>> populated() override;
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override;
  Result<void> health() override;
  MemoryCounters counters() const override;
  bool is_live() const override { return parts_.live; }
  ViewNature nature() const override {
    return {.one_moment = !parts_.live, .direct = parts_.live, .passive = true};
  }
  Result<ReadRights> prepare() override { return ReadRights{.suffice = true}; }
  std::string_view technique() const override { return parts_.technique; }

 private:
  /// A MappedRange as page() wants it.
  struct Run {
    GuestPhys start;
    std::uint64_t size = 0;
    const std::byte* host = nullptr;
    std::uint64_t mask = ~0ULL;  // of offsets: 0 maps every page to the one at `host`
    std::uint64_t first = 0;     // its first bit in touched_
  };
  Result<void> do_refresh() override;
  Result<void> do_end_view() override { return {}; }      // all views have the same mapping
  void do_forget(std::span<const GuestPhys>) override {}  // page() gives no copies
  const Run* find_run(GuestPhys address);
  void touch(std::uint64_t number);

  Parts parts_;
  std::vector<Run> runs_;  // by start
  std::size_t last_ = 0;   // most accesses stay in one run
  // Pages that were touched in this view, one bit each, and the words that are not 0.
  LazyArray<std::uint64_t> touched_;
  std::vector<std::uint64_t> touched_words_;
  std::uint64_t pages_ = 0;
  std::uint64_t copied_ = 0;  // bytes that scan() copied
  std::uint64_t calls_before_ = 0;
};

}  // namespace vmsight
