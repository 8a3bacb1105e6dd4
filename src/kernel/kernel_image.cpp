#include "kernel/kernel_image.h"

#include <algorithm>
#include <cstring>

#include "kernel/bytes.h"
#include "kernel/page_table.h"

namespace vmsight {
namespace {

using Table = std::array<std::uint64_t, 512>;

constexpr std::uint64_t large_address = entry_address & ~(image_alignment - 1);

constexpr std::uint64_t max_image_size = 512U << 20;  // KERNEL_IMAGE_SIZE is 1 GiB at most
constexpr std::uint64_t max_notes_size = 64U << 10;

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
    for (const bool five_level : {false, true}) {
      const auto directory = ImageDirectory::read(memory, root, five_level);
      if (directory && visit(*directory)) return;
    }
  }
}

/// The GNU build-id among ELF notes: {u32 name size, u32 size, u32 type, name, description}.
std::string build_id_in(std::span<const std::byte> notes) {
  constexpr std::uint32_t type_build_id = 3;  // NT_GNU_BUILD_ID
  std::size_t at = 0;
  while (at + 12 <= notes.size()) {
    const std::uint64_t name_size = load_le<std::uint32_t>(notes, at);
    const std::uint64_t size = load_le<std::uint32_t>(notes, at + 4);
    const auto type = load_le<std::uint32_t>(notes, at + 8);
    const std::uint64_t name = at + 12;
    const std::uint64_t description = name + align_up(name_size, 4);
    if (description + size > notes.size()) break;
    if (type == type_build_id && name_size == 4 && size <= 64 &&
        std::memcmp(notes.data() + name, "GNU", 4) == 0) {
      std::string hex;
      for (const std::byte byte : notes.subspan(description, size))
        hex += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
      return hex;
    }
    at = description + align_up(size, 4);
  }
  return "";
}

Result<std::string> read_build_id(GuestMemory& memory, const KernelImage& image,
                                  SymbolTable& symbols) {
  VMSIGHT_TRY(const auto start, symbols.find("__start_notes"));
  VMSIGHT_TRY(const auto stop, symbols.find("__stop_notes"));
  if (!start || !stop) return std::string();
  const std::uint64_t size = std::min(stop->value - start->value, max_notes_size);
  std::vector<std::byte> notes(size);
  if (!read_phys(memory, image.physical(*start), notes)) return std::string();
  return build_id_in(notes);
}

Error misplaced(const KernelImage& image, std::string_view what) {
  return {.code = ErrorCode::bad_data,
          .message = fmt::format("place the kernel image at {}: {}", image.text, what)};
}

/// "Linux version 6.1.0-56-cloud-amd64": what all version texts of a kernel have in common.
std::string_view release_of(std::string_view banner) {
  std::size_t end = banner.find(' ');
  for (int word = 1; word < 3 && end != banner.npos; ++word) end = banner.find(' ', end + 1);
  return banner.substr(0, end);
}

/// The version text as the kernel prints it. That at the start of the read-only data can be an
/// earlier form ("# SMP" for "#1 SMP") that the last link step left behind.
Result<std::string> read_banner(GuestMemory& memory, const KernelImage& image, SymbolTable& symbols,
                                std::string_view marker) {
  VMSIGHT_TRY(const SymbolValue symbol, symbols.require("linux_banner"));
  std::array<std::byte, max_banner_length> text{};
  static_cast<void>(read_phys(memory, image.physical(symbol), text));
  const auto banner = banner_in(text);
  if (!banner || release_of(*banner) != release_of(marker))
    return misplaced(image, "linux_banner is not its version text");
  return *banner;
}

/// Finds the virtual address through the kernel's own table, with four levels or five.
Result<void> walk_own_table(GuestMemory& memory, KernelImage& image) {
  for (const bool five_level : {false, true}) {
    const auto directory = ImageDirectory::read(memory, image.page_table, five_level);
    if (!directory) continue;
    for (std::size_t i = 0; i < ImageDirectory::slots; ++i) {
      if (directory->slot(i) != image.text) continue;
      image.text_va = ImageDirectory::start + i * image_alignment;
      image.five_level = five_level;
      return {};
    }
  }
  Error error = misplaced(image, "its page table does not map it");
  error.hint = "the guest may be starting up, or the image may be a leftover of an earlier boot";
  return error;
}

}  // namespace

std::optional<ImageDirectory> ImageDirectory::read(GuestMemory& memory, GuestPhys root,
                                                   bool five_level) {
  std::optional<GuestPhys> table = root;
  if (five_level) table = next_table(memory, *table, 511);
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
    return start + i * image_alignment - (*slots_[i] - text);
  }
  return std::nullopt;
}

Result<KernelImage> place_image(GuestMemory& memory, const BannerHit& hit, SymbolTable& symbols) {
  KernelImage image;
  image.rodata = hit.rodata;
  VMSIGHT_TRY(const SymbolValue rodata, symbols.require("__start_rodata"));
  VMSIGHT_TRY(const SymbolValue end, symbols.require("_end"));
  VMSIGHT_TRY(const SymbolValue table, symbols.require("init_top_pgt"));
  image.text = hit.rodata - rodata.value;
  image.size = align_up(end.value, page_size);
  image.page_table = image.physical(table);
  if (rodata.value >= image.size || table.value >= image.size || image.size > max_image_size)
    return misplaced(image, "its symbols lie outside of it");
  if (image.text.raw() % image_alignment != 0) return misplaced(image, "not aligned to 2 MiB");
  if (contiguous_ram(memory.ram(), image.text, image.size) < image.size)
    return misplaced(image, "it reaches outside RAM");
  VMSIGHT_TRY_VOID(walk_own_table(memory, image));
  VMSIGHT_TRY(image.banner, read_banner(memory, image, symbols, hit.banner));
  VMSIGHT_TRY(image.build_id, read_build_id(memory, image, symbols));
  return image;
}

Result<std::vector<BannerHit>> banners_of_vcpus(GuestMemory& memory,
                                                std::span<const std::uint64_t> cr3) {
  std::vector<GuestPhys> pages;
  for_each_directory(memory, cr3, [&](const ImageDirectory& directory) {
    for (std::size_t i = 0; i < ImageDirectory::slots; ++i) {
      const auto page = directory.slot(i);
      if (page && memory.ram().contains(*page) &&
          std::find(pages.begin(), pages.end(), *page) == pages.end())
        pages.push_back(*page);
    }
    return false;
  });
  return banners_at(memory, pages);
}

bool is_mapped_by(GuestMemory& memory, const KernelImage& image,
                  std::span<const std::uint64_t> cr3) {
  bool mapped = false;
  for_each_directory(memory, cr3, [&](const ImageDirectory& directory) {
    mapped = directory.find(image.text, image.size) == image.text_va;
    return mapped;
  });
  return mapped;
}

}  // namespace vmsight
