#include "kernel/kernel_image.h"

#include <algorithm>
#include <cstring>

#include "kernel/architecture.h"
#include "kernel/bytes.h"

namespace vmsight {
namespace {

constexpr std::uint64_t max_image_size = 512U << 20;  // KERNEL_IMAGE_SIZE is 1 GiB at most
constexpr std::uint64_t max_notes_size = 64U << 10;

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

/// Finds the virtual address through the kernel's own table.
Result<void> walk_own_table(GuestMemory& memory, KernelImage& image) {
  const auto place = image.architecture->find_image(memory, image.page_table, image.text);
  if (!place) {
    Error error = misplaced(image, "its page table does not map it");
    error.hint = "the guest may be starting up, or the image may be a leftover of an earlier boot";
    return error;
  }
  image.text_va = place->text;
  image.page_table_levels = place->levels;
  return {};
}

struct OwnTable {
  const Architecture* architecture = nullptr;
  SymbolValue symbol;
};

/// The kernel's own table, by the name that it has on one of the architectures.
Result<OwnTable> find_own_table(SymbolTable& symbols) {
  std::string names;
  for (const Architecture* architecture : architectures()) {
    VMSIGHT_TRY(const auto table, symbols.find(architecture->kernel_page_table));
    if (table) return OwnTable{architecture, *table};
    names += fmt::format("{}{}", names.empty() ? "" : ", ", architecture->kernel_page_table);
  }
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("the kernel has no symbol {}", names)};
}

}  // namespace

Result<KernelImage> place_image(GuestMemory& memory, const BannerHit& hit, SymbolTable& symbols) {
  KernelImage image;
  image.rodata = hit.rodata;
  VMSIGHT_TRY(const SymbolValue rodata, symbols.require("__start_rodata"));
  VMSIGHT_TRY(const SymbolValue end, symbols.require("_end"));
  VMSIGHT_TRY(const OwnTable table, find_own_table(symbols));
  image.text = hit.rodata - rodata.value;
  image.size = align_up(end.value, page_size);
  image.architecture = table.architecture;
  image.page_table = image.physical(table.symbol);
  if (rodata.value >= image.size || table.symbol.value >= image.size || image.size > max_image_size)
    return misplaced(image, "its symbols lie outside of it");
  if (image.text.raw() % image.architecture->image_alignment != 0)
    return misplaced(image, "not aligned as images are");
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
  for (const Architecture* architecture : architectures()) {
    const auto mapped = architecture->mapped_images(memory, cr3);
    pages.insert(pages.end(), mapped.begin(), mapped.end());
  }
  return banners_at(memory, pages);
}

bool is_mapped_by(GuestMemory& memory, const KernelImage& image,
                  std::span<const std::uint64_t> cr3) {
  return image.architecture->maps_image(memory, cr3, image.text, image.size, image.text_va);
}

}  // namespace vmsight
