// x86-64 page walks.
//
//   5-level   63........57 56..48 47..39 38..30 29..21 20..12 11..0
//   4-level   63........48        47..39 38..30 29..21 20..12 11..0
//             sign of the   PML5   PML4   PDPT    PD     PT   byte
//             bit below                  (1 GiB) (2 MiB)
//
// Under page-table isolation a process has two roots: the kernel's, and a copy (one page above)
// with user memory and the entry code only. Which of them `root` is, is the caller's business.
#include "kernel/x86_64/page_table.h"

namespace vmsight::x86 {
namespace {

// Software bits of a user entry: arch/x86/include/asm/pgtable_types.h.
constexpr std::uint64_t entry_protnone = 1ULL << 8;      // present, but every access faults
constexpr std::uint64_t entry_special = 1ULL << 9;       // no page of the kernel's: zero page, vvar
constexpr std::uint64_t entry_saved_dirty = 1ULL << 58;  // of a write-protected page, since 6.6
constexpr unsigned huge_level =
    1;  // a transparent huge page is mapped by the second table from below

bool is_canonical(GuestVirt va, unsigned levels) {
  const unsigned unused = 64 - level_shift(levels);
  return static_cast<std::int64_t>(va.raw() << unused) >> unused ==
         static_cast<std::int64_t>(va.raw());
}

/// Entries that only the kernel takes for present hold their address inverted (L1TF).
constexpr std::uint64_t address_of(std::uint64_t entry) {
  return ((entry & entry_present) != 0 ? entry : ~entry) & entry_address;
}

PageEntry decode_user_entry(std::uint64_t entry, unsigned level) {
  PageEntry decoded;
  if (level == 0 || (entry & entry_large) != 0) {
    if ((entry & (entry_present | entry_protnone)) == 0 || level > huge_level) return decoded;
    decoded.kind = PageEntry::Kind::page;
    decoded.dirty = (entry & (entry_dirty | entry_saved_dirty)) != 0;
    decoded.special = (entry & entry_special) != 0;
    decoded.address = GuestPhys(address_of(entry) & ~((1ULL << level_shift(level)) - 1));
  } else if ((entry & entry_present) != 0) {
    decoded.kind = PageEntry::Kind::table;
    decoded.address = GuestPhys(entry & entry_address);
  }
  return decoded;
}

constexpr std::size_t max_runs = 1U << 16;

/// Goes down the tables, depth first, so what it finds is in ascending order.
struct ExecutableSearch {
  GuestMemory& memory;
  std::uint64_t first, last;  // half-open
  std::size_t& tables;
  std::vector<ExecutableRun>& into;
  std::size_t found = 0;

  bool table(GuestPhys at, unsigned level, std::uint64_t base) {
    if (tables == 0) return false;
    --tables;
    const std::byte* page = memory.page(at);
    if (page == nullptr) return true;
    std::array<std::uint64_t, entries_per_table> entries;
    for (std::size_t i = 0; i < entries.size(); ++i) entries[i] = entry_at(page, i);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const std::uint64_t start = base + (i << level_shift(level));
      if (start >= last || start + ((1ULL << level_shift(level)) - 1) < first) continue;
      if ((entries[i] & (entry_present | entry_no_execute)) != entry_present) continue;
      const bool is_page = level == 0 || (entries[i] & entry_large) != 0;
      if (is_page && level > 2) continue;  // reserved: no 512 GiB pages
      if (is_page ? !add(start, 1ULL << level_shift(level))
                  : !table(GuestPhys(entries[i] & entry_address), level - 1, start))
        return false;
    }
    return true;
  }

  bool add(std::uint64_t start, std::uint64_t size) {
    if (found != 0 && into.back().end().raw() == start) {
      into.back().size += size;
      return true;
    }
    into.push_back({GuestVirt(start), size});
    return ++found < max_runs;
  }
};

}  // namespace

bool find_executable(GuestMemory& memory, const AddressSpace& space, GuestVirt first,
                     GuestVirt last, std::size_t& tables, std::vector<ExecutableRun>& into) {
  ExecutableSearch search{memory, first.raw(), last.raw(), tables, into};
  // The upper half begins with ones down to the highest bit that the tables translate.
  const std::uint64_t sign = ~0ULL << level_shift(space.levels());
  const GuestPhys root(space.root().raw() & entry_address);
  return search.table(root, space.levels() - 1, sign);
}

std::optional<AddressSpace::Walk> walk(GuestMemory& memory, const AddressSpace& space, GuestVirt va,
                                       std::vector<GuestPhys>* tables) {
  if (!is_canonical(va, space.levels())) return std::nullopt;
  AddressSpace::Walk result;
  result.writable = result.user = result.executable = true;
  GuestPhys table(space.root().raw() & entry_address);
  for (unsigned level = space.levels(); level-- > 0;) {
    if (tables != nullptr) tables->push_back(table);
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

void read_user_entries(const std::byte* table, unsigned level, std::size_t first, std::size_t last,
                       std::span<PageEntry> into) {
  for (std::size_t i = first; i <= last; ++i) {
    into[i - first] = decode_user_entry(entry_at(table, i), level);
  }
}

}  // namespace vmsight::x86
