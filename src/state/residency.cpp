#include "state/residency.h"

#include <algorithm>
#include <array>

namespace vmsight {

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
  const Unrecorded moving(reader);
  const auto root = reader.space().translate(reader.memory(), reader.pointer(mm + at_.pgd));
  Walk walk{.process = process,
            .start = map.start,
            .end = map.end,
            .huge_zero_frame = huge_zero_frame(reader)};
  const bool whole =
      is_hugetlb || (root && walk_table(walk, root->page(), reader.space().levels() - 1, 0));
  if (!whole || !reader.ok()) return;
  map.rss_bytes = walk.rss;
  map.dirty_bytes = walk.dirty;
}

/// The part of a table that the area covers; `base` is the address its first entry maps.
bool ResidencyReader::walk_table(Walk& walk, GuestPhys table, unsigned level,
                                 std::uint64_t base) const {
  // A hostile guest's tables may refer to each other: the view's time bounds the walk.
  if (walk.process.out_of_time()) return false;
  Reader& reader = walk.process.reader();
  const Architecture& architecture = reader.space().architecture();
  const std::uint64_t entries = 1ULL << architecture.index_bits;
  const unsigned shift = architecture.level_shift(level);
  const std::uint64_t first = (std::max(walk.start, base) - base) >> shift;
  const std::uint64_t last = std::min(((walk.end - 1) - base) >> shift, entries - 1);
  std::array<PageEntry, 8> some;
  for (std::uint64_t i = first; i <= last; ++i) {
    const std::size_t at = (i - first) % some.size();
    if (at == 0) {
      // Asked for anew each time: reading what lies below may move a cache's pages.
      const std::byte* bytes = reader.memory().page(table);
      if (bytes == nullptr) return false;
      architecture.read_user_entries(bytes, level, i, std::min(i + some.size() - 1, last), some);
    }
    const PageEntry& entry = some[at];
    if (entry.kind == PageEntry::Kind::page) count(walk, entry, 1ULL << shift);
    if (entry.kind == PageEntry::Kind::table &&
        !walk_table(walk, entry.address, level - 1, base + (i << shift))) {
      return false;
    }
  }
  return true;
}

void ResidencyReader::count(Walk& walk, const PageEntry& entry, std::uint64_t page_bytes) const {
  const std::uint64_t frame = entry.address.raw() >> page_shift;
  if (entry.special || frame == walk.huge_zero_frame) return;
  Reader& reader = walk.process.reader();
  if (reader.memory().ram().find(entry.address) == nullptr) return;
  walk.rss += page_bytes;
  if (entry.dirty || is_dirty(reader, frame)) walk.dirty += page_bytes;
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
