#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "base/units.h"
#include "image/image_format.h"

namespace vmsight {
namespace {

constexpr std::uint64_t four_gibibytes = 4 * gibibyte;
constexpr std::uint64_t vga_start = 0xa0000, vga_end = 0xc0000;

bool holds(const ImageBytes& file, std::uint64_t offset, std::string_view text) {
  std::array<std::byte, 16> bytes;
  const auto part = std::span(bytes).first(text.size());
  return file.read(offset, part) && std::memcmp(part.data(), text.data(), text.size()) == 0;
}

/// Physical address of the ACPI root table, by the pointer to it ("RSD PTR ", on 16-byte
/// boundaries from 0xe0000; ACPI specification 5.2.5) that a BIOS leaves below 1 MiB.
std::optional<std::uint64_t> acpi_root(const ImageBytes& file) {
  constexpr std::uint64_t area_start = 0xe0000, area_end = 0x100000, rsdt_field = 16;
  std::array<std::byte, area_end - area_start> area;
  if (!file.read(area_start, area)) return std::nullopt;
  for (std::size_t at = 0; at + 24 <= area.size(); at += 16) {
    if (std::memcmp(&area[at], "RSD PTR ", 8) != 0) continue;
    std::uint32_t root = 0;
    std::memcpy(&root, &area[at + rsdt_field], sizeof root);
    if (holds(file, root, "RSDT")) return root;
  }
  return std::nullopt;
}

/// Where RAM below 4 GiB ends. The firmware puts its tables at the end; every machine type of
/// QEMU ends it at a multiple of 512 MiB if there is RAM above.
Result<std::uint64_t> find_split(const ImageBytes& file) {
  constexpr std::uint64_t granule = 512 * mebibyte, always_whole = 2816 * mebibyte;
  if (const auto root = acpi_root(file)) {
    return std::min(file.size(), (*root + granule - 1) / granule * granule);
  }
  if (file.size() < always_whole) return file.size();
  return Error{.code = ErrorCode::ambiguous,
               .message = "read raw image: where its RAM goes on above 4 GiB cannot be told",
               .hint = "use an ELF core (dump-guest-memory, or vmsight snapshot) instead"};
}

/// An image of all guest-physical memory has the firmware's reset vector below 4 GiB too; in one
/// of RAM only, ordinary memory lies there.
bool has_address_hole(const ImageBytes& file) {
  constexpr std::uint64_t reset_vector = 16, first_megabyte = mebibyte;
  const auto high = number_at<std::uint64_t>(file, four_gibibytes - reset_vector);
  const auto low = number_at<std::uint64_t>(file, first_megabyte - reset_vector);
  return high && low && *high == *low && *high != 0;
}

}  // namespace

/// Guest RAM without any header: the content of the RAM block (a memory-backend-file, say), or all
/// of guest-physical memory (pmemsave from 0). Where RAM goes on above 4 GiB is not written in it;
/// the firmware's ACPI tables, which lie at the end of the RAM below, tell.
Result<Image> read_raw_memory(const ImageBytes& file) {
  if (file.size() < mebibyte || file.size() % page_size != 0) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "read image: of no known format, nor whole pages of raw memory",
                 .hint = "`virsh dump --memory-only` and `vmsight snapshot` write images that fit"};
  }
  VMSIGHT_TRY(const std::uint64_t split, find_split(file));
  Image image;
  image.format = "raw";
  image.segments.push_back({GuestPhys(0), vga_start, 0, vga_start});
  image.segments.push_back({GuestPhys(vga_end), split - vga_end, vga_end, split - vga_end});
  const std::uint64_t above_at = has_address_hole(file) ? four_gibibytes : split;
  if (above_at < file.size()) {
    const std::uint64_t size = file.size() - above_at;
    image.segments.push_back({GuestPhys(four_gibibytes), size, above_at, size});
  }
  return image;
}

}  // namespace vmsight
