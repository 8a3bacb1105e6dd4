#include "view/cached_memory.h"

#include <algorithm>

#include "base/poison.h"

namespace vmsight {

Result<std::unique_ptr<CachedMemory>> CachedMemory::make(std::unique_ptr<PageSource> source,
                                                         CacheLimits limits) {
  std::unique_ptr<CachedMemory> memory(new CachedMemory);
  VMSIGHT_TRY(memory->index_, PageIndex::from(source->ram()));
  limits.max_pages = std::min(limits.max_pages, memory->index_.size());
  VMSIGHT_TRY(memory->slot_of_, LazyArray<std::uint32_t>::make(memory->index_.size()));
  VMSIGHT_TRY(memory->frames_, LazyArray<Frame>::make(limits.max_pages, PageSize::huge));
  if constexpr (poisons) {
    VMSIGHT_TRY(memory->retired_frames_, LazyArray<Frame>::make(limits.max_pages));
  }
  memory->limits_ = limits;
  memory->source_ = std::move(source);
  memory->calls_before_ = memory->source_->calls();
  return memory;
}

/// The address space may be used for something else afterwards.
CachedMemory::~CachedMemory() {
  if constexpr (poisons) {
    unpoison(std::as_bytes(std::span(frames_.data(), most_slots_)));
    unpoison(std::as_bytes(std::span(retired_frames_.data(), most_slots_)));
  }
}

const std::byte* CachedMemory::page(GuestPhys address) {
  const std::optional<std::uint32_t> number = index_.find(address);
  if (!number) return nullptr;
  const std::uint32_t slot = slot_of_[*number];
  if (slot != 0 && slots_[slot - 1].ready) [[likely]]
    return use(slot - 1);
  return miss(*number);
}

const std::byte* CachedMemory::use(std::uint32_t slot) {
  if (!slots_[slot].used) {
    slots_[slot].used = true;
    ++counters_.pages;
  }
  return frames_[slot].bytes;
}

const std::byte* CachedMemory::miss(std::uint32_t number) {
  if (failure_) return nullptr;
  const std::optional<std::uint32_t> slot = allot(number);
  if (!slot) return nullptr;
  // Forgotten pages are wanted again by the same retry: one call fetches them all, but for those that a hint has
  // fetched already, and that may have been shown.
  std::erase_if(stale_, [this](std::uint32_t forgotten) { return slots_[forgotten].ready; });
  if (std::find(stale_.begin(), stale_.end(), *slot) == stale_.end()) stale_.push_back(*slot);
  fill(stale_);
  stale_.clear();
  return slots_[*slot].ready ? use(*slot) : nullptr;
}

/// The slot of this page, a new one if it has none; nullopt if the cache is full.
std::optional<std::uint32_t> CachedMemory::allot(std::uint32_t number) {
  if (slot_of_[number] != 0) return slot_of_[number] - 1;
  if (slots_.size() >= limits_.max_pages) {
    failure_ = Error{.code = ErrorCode::unsupported,
                     .message = fmt::format("cache guest memory: one view needs more than {} pages",
                                            limits_.max_pages)};
    return std::nullopt;
  }
  const auto slot = static_cast<std::uint32_t>(slots_.size());
  slots_.push_back({.number = number});
  slot_of_[number] = slot + 1;
  high_water_ = std::max(high_water_, slots_.size());
  most_slots_ = std::max(most_slots_, slots_.size());
  return slot;
}

void CachedMemory::fill(std::span<const std::uint32_t> slots) {
  batch_.clear();
  for (const std::uint32_t slot : slots) {
    unpoison(frames_[slot].bytes);
    batch_.push_back({.from = index_.page(slots_[slot].number), .into = frames_[slot].bytes});
  }
  if (auto done = source_->read(batch_); !done) {
    failure_ = std::move(done).error();
    return;
  }
  for (std::size_t i = 0; i < slots.size(); ++i) {
    slots_[slots[i]].ready = batch_[i].ok;
    if (batch_[i].ok) counters_.bytes += page_size;
  }
}

/// A pointer into a view that is over would show whatever page the next one reads to that place.
/// Under AddressSanitizer the next view has other frames, and touching these ends the program.
void CachedMemory::retire_frames() {
  if constexpr (!poisons) return;
  poison(std::as_bytes(std::span(frames_.data(), slots_.size())));
  std::swap(frames_, retired_frames_);
}

void CachedMemory::prefetch(std::span<const GuestPhys> pages) {
  if (failure_) return;
  std::vector<std::uint32_t> numbers;
  for (const GuestPhys page : pages) {
    if (const auto number = index_.find(page)) numbers.push_back(*number);
  }
  std::sort(numbers.begin(), numbers.end());  // neighbours become one run of a batch
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  std::vector<std::uint32_t> wanted;
  for (const std::uint32_t number : numbers) {
    // A hint must not use up the cache: what is left of it belongs to page().
    if (slots_.size() >= limits_.max_pages / 2) break;
    const auto slot = allot(number);
    if (slot && !slots_[*slot].ready) wanted.push_back(*slot);
  }
  if (!wanted.empty()) fill(wanted);
}

Result<void> CachedMemory::read_fresh(std::span<FreshRead> reads) {
  std::vector<FreshRead> inside;
  std::vector<std::size_t> origin;
  for (std::size_t i = 0; i < reads.size(); ++i) {
    reads[i].ok = false;
    if (!index_.find(reads[i].from)) continue;
    if (reads[i].from.page_offset() + reads[i].into.size() > page_size) continue;
    inside.push_back(reads[i]);
    origin.push_back(i);
  }
  if (inside.empty()) return {};
  VMSIGHT_TRY_VOID(source_->read(inside));
  for (std::size_t i = 0; i < inside.size(); ++i) {
    reads[origin[i]].ok = inside[i].ok;
    if (inside[i].ok) counters_.bytes += inside[i].into.size();
  }
  return {};
}

Result<void> CachedMemory::do_refresh() {
  const std::vector<std::uint32_t> learnt = used_pages();
  start_view();
  std::vector<std::uint32_t> wanted;
  wanted.reserve(learnt.size());
  for (const std::uint32_t number : learnt) {
    if (const auto slot = allot(number)) wanted.push_back(*slot);
  }
  sorted_slots_ = slots_.size();
  if (!wanted.empty()) fill(wanted);
  if (failure_) return *failure_;
  return {};
}

/// Numbers of the pages that this view really used, ascending.
std::vector<std::uint32_t> CachedMemory::used_pages() const {
  std::vector<std::uint32_t> numbers;
  numbers.reserve(slots_.size());
  std::size_t sorted = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (i == sorted_slots_) sorted = numbers.size();
    if (slots_[i].used) numbers.push_back(slots_[i].number);
  }
  if (sorted_slots_ >= slots_.size()) return numbers;
  // Most pages were prefetched, in order: only those that came after need sorting.
  const auto middle = numbers.begin() + static_cast<std::ptrdiff_t>(sorted);
  std::sort(middle, numbers.end());
  std::inplace_merge(numbers.begin(), middle, numbers.end());
  return numbers;
}

void CachedMemory::start_view() {
  std::size_t used = 0;
  for (const Slot& slot : slots_) {
    slot_of_[slot.number] = 0;
    used += slot.used ? 1 : 0;
  }
  // A view that was far larger than what is used now (an attach that scanned) gives its memory
  // back; the slack keeps views of changing size from giving and taking all the time.
  constexpr std::size_t slack = 1024;
  const std::size_t keep = 2 * used + slack;
  if (high_water_ > keep) {
    frames_.release_from(keep);
    high_water_ = keep;
  }
  retire_frames();
  slots_.clear();
  stale_.clear();
  failure_.reset();
  counters_ = {};
  calls_before_ = source_->calls();
}

void CachedMemory::do_forget(std::span<const GuestPhys> pages) {
  for (const GuestPhys page : pages) {
    const std::optional<std::uint32_t> number = index_.find(page);
    if (!number || slot_of_[*number] == 0) continue;
    const std::uint32_t slot = slot_of_[*number] - 1;
    if (!slots_[slot].ready) continue;
    slots_[slot].ready = false;
    poison(frames_[slot].bytes);
    stale_.push_back(slot);
  }
}

Result<std::vector<PhysRange>> CachedMemory::populated() { return source_->populated(); }

Result<void> CachedMemory::scan(GuestPhys from, std::span<std::byte> into) {
  VMSIGHT_TRY_VOID(source_->scan(from, into));
  counters_.bytes += into.size();
  return {};
}

Result<void> CachedMemory::health() {
  if (failure_) return *failure_;
  return source_->health();
}

MemoryCounters CachedMemory::counters() const {
  MemoryCounters counters = counters_;
  counters.calls = source_->calls() - calls_before_;
  return counters;
}

}  // namespace vmsight
