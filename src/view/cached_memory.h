// A page cache that lives for one view, over any PageSource.
//
// The pages that a view really used are fetched by the next refresh() in one batch, so that from
// the second view on nearly every page() finds its page already there. Contents are never kept
// from one view to the next; only the choice of pages is.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "view/lazy_array.h"
#include "view/page_index.h"
#include "view/page_source.h"
#include "vmsight/memory.h"

namespace vmsight {

struct CacheLimits {
  /// Pages that one view may hold. Pointers handed out stay valid for the whole view, so a page
  /// beyond this cannot displace another: it is unreadable, and health() says so.
  std::uint32_t max_pages = 262144;  // 1 GiB
};

class CachedMemory final : public GuestMemory {
 public:
  CachedMemory(const CachedMemory&) = delete;
  CachedMemory& operator=(const CachedMemory&) = delete;
  ~CachedMemory() override;

  static Result<std::unique_ptr<CachedMemory>> make(std::unique_ptr<PageSource> source,
                                                    CacheLimits limits = {});

  const RamMap& ram() const override { return source_->ram(); }
  const std::byte* page(GuestPhys address) override;
  void prefetch(std::span<const GuestPhys> pages) override;
  Result<void> read_fresh(std::span<FreshRead> reads) override;
  Result<std::vector<PhysRange>> populated() override;
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override;
  Result<void> health() override;
  MemoryCounters counters() const override;
  bool is_live() const override { return source_->is_live(); }
  ViewNature nature() const override { return {.passive = source_->is_passive()}; }
  Result<ReadRights> prepare() override { return source_->prepare(); }
  std::string_view technique() const override { return source_->technique(); }

 private:
  struct Frame {
    std::byte bytes[page_size];
  };
  /// What is in a frame.
  struct Slot {
    std::uint32_t number = 0;  // of the guest page, by index_
    bool ready = false;        // the frame holds its contents
    bool used = false;         // page() returned it in this view
  };

  CachedMemory() = default;
  Result<void> do_refresh() override;
  /// Pages stay until the next view: what they cost the guest is paid.
  Result<void> do_end_view() override { return {}; }
  void do_forget(std::span<const GuestPhys> pages) override;
  const std::byte* use(std::uint32_t slot);
  const std::byte* miss(std::uint32_t number);
  std::optional<std::uint32_t> allot(std::uint32_t number);
  void fill(std::span<const std::uint32_t> slots);
  std::vector<std::uint32_t> used_pages() const;
  void retire_frames();
  void start_view();

  std::unique_ptr<PageSource> source_;
  PageIndex index_;
  LazyArray<std::uint32_t> slot_of_;  // page number -> slot + 1; 0 if it is not cached
  LazyArray<Frame> frames_;           // one for each slot; none moves while a view lasts
  LazyArray<Frame> retired_frames_;   // those of the view before, poisoned; empty if not `poisons`
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> stale_;  // slots that forget() emptied
  std::size_t sorted_slots_ = 0;      // the first slots are in the order of their pages
  std::optional<Error> failure_;      // why reading stopped working
  MemoryCounters counters_;
  std::uint64_t calls_before_ = 0;  // source_->calls() when this view began
  std::size_t high_water_ = 0;      // most slots in use since memory was given back
  std::size_t most_slots_ = 0;      // ... ever
  CacheLimits limits_;
  std::vector<FreshRead> batch_;  // reused by fill()
};

}  // namespace vmsight
