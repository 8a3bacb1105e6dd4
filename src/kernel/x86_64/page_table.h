// x86-64 page tables: what their entries say.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "kernel/architecture.h"

namespace vmsight::x86 {

// Bits of a page-table entry: Intel SDM volume 3, 4.5.
inline constexpr std::uint64_t entry_present = 1ULL << 0;
inline constexpr std::uint64_t entry_writable = 1ULL << 1;
inline constexpr std::uint64_t entry_user = 1ULL << 2;
inline constexpr std::uint64_t entry_dirty = 1ULL << 6;
inline constexpr std::uint64_t entry_large = 1ULL << 7;
inline constexpr std::uint64_t entry_no_execute = 1ULL << 63;
inline constexpr std::uint64_t entry_address = 0x000ffffffffff000ULL;
inline constexpr unsigned bits_per_level = 9;
inline constexpr std::uint64_t entries_per_table = 1ULL << bits_per_level;

/// The address bits that an entry of this level leaves to the levels below; level 0 maps 4 KiB.
constexpr unsigned level_shift(unsigned level) { return page_shift + bits_per_level * level; }

/// One entry of a table that page() gave. The guest may change it: judge and use one copy.
inline std::uint64_t entry_at(const std::byte* table, std::uint64_t index) {
  std::uint64_t entry;
  std::memcpy(&entry, table + index * sizeof(entry), sizeof(entry));
  asm volatile("" : "+r"(entry));
  return entry;
}

// As Architecture has them.
std::optional<AddressSpace::Walk> walk(GuestMemory& memory, const AddressSpace& space, GuestVirt va,
                                       std::vector<GuestPhys>* tables);
void read_user_entries(const std::byte* table, unsigned level, std::size_t first, std::size_t last,
                       std::span<PageEntry> into);
bool find_executable(GuestMemory& memory, const AddressSpace& space, GuestVirt first,
                     GuestVirt last, std::size_t& tables, std::vector<ExecutableRun>& into);

}  // namespace vmsight::x86
