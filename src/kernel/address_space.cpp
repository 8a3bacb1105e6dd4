// x86-64 page walks.
//
//   5-level   63........57 56..48 47..39 38..30 29..21 20..12 11..0
//   4-level   63........48        47..39 38..30 29..21 20..12 11..0
//             sign of the   PML5   PML4   PDPT    PD     PT   byte
//             bit below                  (1 GiB) (2 MiB)
//
// Under page-table isolation a process has two roots: the kernel's, and a copy (one page above)
// with user memory and the entry code only. Which of them `root` is, is the caller's business.
#include "kernel/page_table.h"

#include <algorithm>
#include <cstring>

namespace vmsight {
namespace {

bool is_canonical(GuestVirt va, bool five_level) {
  const unsigned unused = five_level ? 7 : 16;
  return static_cast<std::int64_t>(va.raw() << unused) >> unused ==
         static_cast<std::int64_t>(va.raw());
}

/// Tells `on_table` of each table before it is read.
template <typename OnTable>
std::optional<AddressSpace::Walk> walk_tables(GuestMemory& memory, const AddressSpace& space,
                                              GuestVirt va, OnTable on_table) {
  if (!is_canonical(va, space.five_level())) return std::nullopt;
  AddressSpace::Walk result;
  result.writable = result.user = result.executable = true;
  GuestPhys table(space.root().raw() & entry_address);
  for (int level = space.five_level() ? 4 : 3; level >= 0; --level) {
    on_table(table);
    const std::byte* page = memory.page(table);
    if (page == nullptr) return std::nullopt;
    const std::uint64_t entry =
        entry_at(page, va.raw() >> level_shift(level) & (entries_per_table - 1));
    if ((entry & entry_present) == 0) return std::nullopt;
    result.writable &= (entry & entry_writable) != 0;
    result.user &= (entry & entry_user) != 0;
    result.executable &= (entry & entry_no_execute) == 0;
    const bool is_large = level > 0 && (entry & entry_large) != 0;
    if (is_large && level > 2) return std::nullopt;  // reserved: no 512 GiB pages
    if (level == 0 || is_large) {
      result.mapping_size = 1ULL << level_shift(level);
      const std::uint64_t offset_mask = result.mapping_size - 1;
      result.address = GuestPhys((entry & entry_address & ~offset_mask) | (va.raw() & offset_mask));
      return result;
    }
    table = GuestPhys(entry & entry_address);
  }
  return std::nullopt;
}

}  // namespace

std::optional<AddressSpace::Walk> AddressSpace::walk(GuestMemory& memory, GuestVirt va) const {
  return walk_tables(memory, *this, va, [](GuestPhys) {});
}

void append_tables(GuestMemory& memory, const AddressSpace& space, GuestVirt va,
                   std::vector<GuestPhys>& into) {
  if (space.direct_map().contains(va) || space.image().contains(va)) return;
  walk_tables(memory, space, va, [&into](GuestPhys table) { into.push_back(table); });
}

std::optional<GuestPhys> AddressSpace::translate(GuestMemory& memory, GuestVirt va) const {
  if (direct_map_.contains(va)) return GuestPhys(va.raw() - direct_map_.delta);
  if (image_.contains(va)) return GuestPhys(va.raw() - image_.delta);
  const auto found = walk(memory, va);
  if (!found) return std::nullopt;
  return found->address;
}

std::size_t AddressSpace::copy(GuestMemory& memory, GuestVirt from,
                               std::span<std::byte> into) const {
  std::size_t done = 0;
  while (done < into.size()) {
    const GuestVirt va = from + done;
    const auto at = translate(memory, va);
    const std::byte* page = at ? memory.page(*at) : nullptr;
    if (page == nullptr) break;
    const std::size_t length =
        std::min<std::size_t>(page_size - va.page_offset(), into.size() - done);
    std::memcpy(into.data() + done, page + va.page_offset(), length);
    done += length;
  }
  return done;
}

}  // namespace vmsight
