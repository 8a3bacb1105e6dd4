// x86-64 page walks.
//
//   5-level   63........57 56..48 47..39 38..30 29..21 20..12 11..0
//   4-level   63........48        47..39 38..30 29..21 20..12 11..0
//             sign of the   PML5   PML4   PDPT    PD     PT   byte
//             bit below                  (1 GiB) (2 MiB)
//
// Under page-table isolation a process has two roots: the kernel's, and a copy (one page above)
// with user memory and the entry code only. Which of them `root` is, is the caller's business.
#include <cstring>

#include "vmsight/kernel.h"

namespace vmsight {
namespace {

// Bits of a page-table entry: Intel SDM volume 3, 4.5.
constexpr std::uint64_t entry_present = 1ULL << 0;
constexpr std::uint64_t entry_writable = 1ULL << 1;
constexpr std::uint64_t entry_user = 1ULL << 2;
constexpr std::uint64_t entry_large = 1ULL << 7;
constexpr std::uint64_t entry_no_execute = 1ULL << 63;
constexpr std::uint64_t entry_address = 0x000ffffffffff000ULL;
constexpr unsigned bits_per_level = 9;

bool is_canonical(GuestVirt va, bool five_level) {
  const unsigned unused = five_level ? 7 : 16;
  return static_cast<std::int64_t>(va.raw() << unused) >> unused ==
         static_cast<std::int64_t>(va.raw());
}

std::optional<std::uint64_t> read_entry(GuestMemory& memory, GuestPhys table, std::uint64_t index) {
  const std::byte* page = memory.page(table);
  if (page == nullptr) return std::nullopt;
  std::uint64_t entry;
  std::memcpy(&entry, page + index * sizeof(entry), sizeof(entry));
  asm volatile("" : "+r"(entry));  // the guest may change it: judge and use one copy
  return entry;
}

}  // namespace

std::optional<AddressSpace::Walk> AddressSpace::walk(GuestMemory& memory, GuestVirt va) const {
  if (!is_canonical(va, five_level_)) return std::nullopt;
  Walk result;
  result.writable = result.user = result.executable = true;
  GuestPhys table(root_.raw() & entry_address);
  for (int level = five_level_ ? 4 : 3; level >= 0; --level) {
    const unsigned shift = page_shift + bits_per_level * static_cast<unsigned>(level);
    const std::uint64_t index = (va.raw() >> shift) & ((1U << bits_per_level) - 1);
    const auto entry = read_entry(memory, table, index);
    if (!entry || (*entry & entry_present) == 0) return std::nullopt;
    result.writable &= (*entry & entry_writable) != 0;
    result.user &= (*entry & entry_user) != 0;
    result.executable &= (*entry & entry_no_execute) == 0;
    const bool is_large = level > 0 && (*entry & entry_large) != 0;
    if (is_large && level > 2) return std::nullopt;  // reserved: no 512 GiB pages
    if (level == 0 || is_large) {
      result.mapping_size = 1ULL << shift;
      const std::uint64_t offset_mask = result.mapping_size - 1;
      result.address =
          GuestPhys((*entry & entry_address & ~offset_mask) | (va.raw() & offset_mask));
      return result;
    }
    table = GuestPhys(*entry & entry_address);
  }
  return std::nullopt;
}

std::optional<GuestPhys> AddressSpace::translate(GuestMemory& memory, GuestVirt va) const {
  if (direct_map_.contains(va)) return GuestPhys(va.raw() - direct_map_.delta);
  if (image_.contains(va)) return GuestPhys(va.raw() - image_.delta);
  const auto found = walk(memory, va);
  if (!found) return std::nullopt;
  return found->address;
}

}  // namespace vmsight
