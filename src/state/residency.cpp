#include "state/residency.h"

#include <algorithm>

#include "kernel/page_table.h"

namespace vmsight {
namespace {

// Software bits of a user entry: arch/x86/include/asm/pgtable_types.h.
constexpr std::uint64_t entry_protnone = 1ULL << 8;      // present, but every access faults
constexpr std::uint64_t entry_special = 1ULL << 9;       // no page of the kernel's: zero page, vvar
constexpr std::uint64_t entry_saved_dirty = 1ULL << 58;  // of a write-protected page, since 6.6
constexpr int huge_level = 1;  // a transparent huge page is mapped by the second table from below

constexpr bool is_present(std::uint64_t entry) {
  return (entry & (entry_present | entry_protnone)) != 0;
}

/// Entries that only the kernel takes for present hold their address inverted (L1TF).
constexpr std::uint64_t address_of(std::uint64_t entry) {
  return ((entry & entry_present) != 0 ? entry : ~entry) & entry_address;
}

}  // namespace

struct ResidencyReader::Walk {
  ProcessContext& process;
  std::uint64_t start, end;  // of the area
  std::uint64_t huge_zero_frame;
  std::uint64_t rss = 0, dirty = 0;
};

Result<ResidencyReader> ResidencyReader::resolve(Kernel& kernel) {
  Members members(kernel);
  ResidencyReader reader;
  reader.at_ = {
      .pgd = members.offset("mm_struct", "pgd"),
      .flags = members.offset("page", "flags"),
      .head = members.offset("page", {"compound_head", "compound_info"}),
  };
  reader.page_bytes_ = members.size("page");
  reader.huge_zero_frame_ = members.find_symbol("huge_zero_pfn");
  reader.huge_zero_page_ = members.find_symbol("huge_zero_page");
  reader.vmemmap_ = kernel.vmemmap();
  VMSIGHT_TRY_VOID(members.check());
  const auto dirty = kernel.enumerator("PG_dirty");
  if (!dirty || *dirty < 0 || *dirty > 63 || reader.page_bytes_ == 0) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "the kernel's page flags are not known"};
  }
  reader.dirty_flag_ = 1ULL << *dirty;
  return reader;
}

void ResidencyReader::measure(ProcessContext& process, GuestVirt mm, bool is_hugetlb,
                              MemoryMap& map) const {
  Reader& reader = process.reader();
  const auto root = reader.space().translate(reader.memory(), reader.pointer(mm + at_.pgd));
  Walk walk{.process = process,
            .start = map.start,
            .end = map.end,
            .huge_zero_frame = huge_zero_frame(reader)};
  const int top = reader.space().five_level() ? 4 : 3;
  const bool whole = is_hugetlb || (root && walk_table(walk, root->page(), top, 0));
  if (!whole || !reader.ok()) return;
  map.rss_bytes = walk.rss;
  map.dirty_bytes = walk.dirty;
}

/// The part of a table that the area covers; `base` is the address its first entry maps.
bool ResidencyReader::walk_table(Walk& walk, GuestPhys table, int level, std::uint64_t base) const {
  // A hostile guest's tables may refer to each other: the view's time bounds the walk.
  if (walk.process.out_of_time()) return false;
  const unsigned shift = level_shift(level);
  const std::uint64_t first = (std::max(walk.start, base) - base) >> shift;
  const std::uint64_t last = std::min(((walk.end - 1) - base) >> shift, entries_per_table - 1);
  GuestMemory& memory = walk.process.reader().memory();
  for (std::uint64_t i = first; i <= last; ++i) {
    // Asked for anew each time: reading what lies below may move a cache's pages.
    const std::byte* bytes = memory.page(table);
    if (bytes == nullptr) return false;
    const std::uint64_t entry = entry_at(bytes, i);
    const bool is_large = level > 0 && (entry & entry_large) != 0;
    if (level == 0 || is_large) {
      if (is_present(entry) && level <= huge_level) count(walk, entry, 1ULL << shift);
    } else if ((entry & entry_present) != 0) {
      const GuestPhys below(entry & entry_address);
      if (!walk_table(walk, below, level - 1, base + (i << shift))) return false;
    }
  }
  return true;
}

void ResidencyReader::count(Walk& walk, std::uint64_t entry, std::uint64_t page_bytes) const {
  const std::uint64_t address = address_of(entry) & ~(page_bytes - 1);
  if ((entry & entry_special) != 0 || address >> page_shift == walk.huge_zero_frame) return;
  Reader& reader = walk.process.reader();
  if (reader.memory().ram().find(GuestPhys(address)) == nullptr) return;
  walk.rss += page_bytes;
  if ((entry & (entry_dirty | entry_saved_dirty)) != 0 || is_dirty(reader, address >> page_shift)) {
    walk.dirty += page_bytes;
  }
}

/// The kernel counts a page as dirty too if its structure says so.
bool ResidencyReader::is_dirty(Reader& reader, std::uint64_t frame) const {
  const GuestVirt page = head_of(reader, vmemmap_ + frame * page_bytes_);
  return (reader.u64(page + at_.flags) & dirty_flag_) != 0;
}

/// The first page of a compound page has the flags of all.
GuestVirt ResidencyReader::head_of(Reader& reader, GuestVirt page) const {
  const std::uint64_t head = reader.u64(page + at_.head);
  if ((head & 1) == 0) return page;
  // Since 7.0 a mask of the page's own address may stand there in place of a pointer; as a pointer
  // it would lie behind all pages.
  const std::uint64_t frames = reader.memory().ram().end().raw() >> page_shift;
  const GuestVirt pointed(head - 1);
  const bool is_pointer = pointed >= vmemmap_ && pointed < vmemmap_ + frames * page_bytes_;
  return is_pointer ? pointed : GuestVirt(head & page.raw());
}

/// ~0 if there is none. It is never counted as resident.
std::uint64_t ResidencyReader::huge_zero_frame(Reader& reader) const {
  if (huge_zero_frame_.raw() != 0) return reader.u64(huge_zero_frame_);
  if (huge_zero_page_.raw() == 0) return ~0ULL;
  const GuestVirt page = reader.pointer(huge_zero_page_);
  return page < vmemmap_ ? ~0ULL : (page - vmemmap_) / page_bytes_;
}

}  // namespace vmsight
