#include "kernel/x86_64/image_directory.h"

#include <algorithm>

#include "kernel/x86_64/page_table.h"

namespace vmsight::x86 {
namespace {

using Table = std::array<std::uint64_t, entries_per_table>;

constexpr std::uint64_t large_address = entry_address & ~(ImageDirectory::slot_size - 1);

std::optional<Table> read_table(GuestMemory& memory, GuestPhys at) {
  const std::byte* page = memory.page(at);
  if (page == nullptr) return std::nullopt;
  Table table;
  std::memcpy(table.data(), page, sizeof(table));
  return table;
}

std::optional<GuestPhys> next_table(GuestMemory& memory, GuestPhys at, std::size_t index) {
  const auto table = read_table(memory, at);
  if (!table) return std::nullopt;
  const std::uint64_t entry = (*table)[index];
  if ((entry & entry_present) == 0 || (entry & entry_large) != 0) return std::nullopt;
  return GuestPhys(entry & entry_address);
}

/// Where 2 MiB that are mapped by single pages begin, judged by the first page present.
std::optional<GuestPhys> start_of_pages(GuestMemory& memory, GuestPhys at) {
  const auto table = read_table(memory, at);
  if (!table) return std::nullopt;
  for (std::size_t i = 0; i < table->size(); ++i) {
    if (((*table)[i] & entry_present) != 0)
      return GuestPhys(((*table)[i] & entry_address) - i * page_size);
  }
  return std::nullopt;
}

/// Root tables that CR3 may stand for. Under page-table isolation a vCPU in user mode uses the
/// copy in the odd page behind the kernel's table; without it bit 12 is an address bit like
/// others, so both are tried and the one that makes sense is believed.
std::vector<GuestPhys> roots_of(std::span<const std::uint64_t> cr3) {
  std::vector<GuestPhys> roots;
  for (const std::uint64_t value : cr3) {
    for (const std::uint64_t mask : {entry_address, entry_address & ~page_size}) {
      const GuestPhys root(value & mask);
      if (std::find(roots.begin(), roots.end(), root) == roots.end()) roots.push_back(root);
    }
  }
  return roots;
}

template <typename Visit>
void for_each_directory(GuestMemory& memory, std::span<const std::uint64_t> cr3, Visit visit) {
  for (const GuestPhys root : roots_of(cr3)) {
    for (const unsigned levels : {4U, 5U}) {
      const auto directory = ImageDirectory::read(memory, root, levels);
      if (directory && visit(*directory)) return;
    }
  }
}

}  // namespace

std::optional<ImageDirectory> ImageDirectory::read(GuestMemory& memory, GuestPhys root,
                                                   unsigned levels) {
  std::optional<GuestPhys> table = root;
  if (levels == 5) table = next_table(memory, *table, 511);
  if (table) table = next_table(memory, *table, 511);
  if (table) table = next_table(memory, *table, 510);
  if (!table) return std::nullopt;
  const auto entries = read_table(memory, *table);
  if (!entries) return std::nullopt;
  ImageDirectory directory;
  for (std::size_t i = 0; i < slots; ++i) {
    const std::uint64_t entry = (*entries)[i];
    if ((entry & entry_present) == 0) continue;
    directory.slots_[i] = (entry & entry_large) != 0
                              ? std::optional(GuestPhys(entry & large_address))
                              : start_of_pages(memory, GuestPhys(entry & entry_address));
  }
  return directory;
}

std::optional<GuestVirt> ImageDirectory::find(GuestPhys text, std::uint64_t size) const {
  for (std::size_t i = 0; i < slots; ++i) {
    if (!slots_[i] || *slots_[i] < text || *slots_[i] >= text + size) continue;
    return start + i * slot_size - (*slots_[i] - text);
  }
  return std::nullopt;
}

std::optional<Architecture::ImagePlace> find_image(GuestMemory& memory, GuestPhys table,
                                                   GuestPhys text) {
  for (const unsigned levels : {4U, 5U}) {
    const auto directory = ImageDirectory::read(memory, table, levels);
    if (!directory) continue;
    for (std::size_t i = 0; i < ImageDirectory::slots; ++i) {
      if (directory->slot(i) == text) {
        return Architecture::ImagePlace{ImageDirectory::start + i * ImageDirectory::slot_size,
                                        levels};
      }
    }
  }
  return std::nullopt;
}

std::vector<GuestPhys> mapped_images(GuestMemory& memory,
                                     std::span<const std::uint64_t> registers) {
  std::vector<GuestPhys> pages;
  for_each_directory(memory, registers, [&](const ImageDirectory& directory) {
    for (std::size_t i = 0; i < ImageDirectory::slots; ++i) {
      const auto page = directory.slot(i);
      if (page && memory.ram().contains(*page) &&
          std::find(pages.begin(), pages.end(), *page) == pages.end())
        pages.push_back(*page);
    }
    return false;
  });
  return pages;
}

bool maps_image(GuestMemory& memory, std::span<const std::uint64_t> registers, GuestPhys text,
                std::uint64_t size, GuestVirt at) {
  bool mapped = false;
  for_each_directory(memory, registers, [&](const ImageDirectory& directory) {
    mapped = directory.find(text, size) == at;
    return mapped;
  });
  return mapped;
}

}  // namespace vmsight::x86
