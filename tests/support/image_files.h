// Builds memory images as others write them, after their published descriptions. The memory is that
// of `test_page()`: a test knows what must be read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace vmsight::test {

inline constexpr std::uint64_t image_page = 4096;

/// What page `number` of the made-up memory holds: text that compresses, not to be mistaken.
std::string test_page(std::uint64_t number);
std::string test_pages(std::uint64_t first, std::uint64_t count);

/// LiME, doc/README.md: headers with inclusive ends.
std::string lime_range(std::uint64_t start, std::string_view memory);

/// AVML, src/image.rs: LiME version 2, a stream of snappy frames (framing_format.txt), its length.
std::string avml_block(std::uint64_t start, std::string_view memory, bool packed = true);

enum class KdumpCodec : std::uint32_t { none = 0, zlib = 1, lzo = 2, snappy = 4, zstd = 0x20 };

/// makedumpfile, diskdump_mod.h and IMPLEMENTATION; version 6.
struct KdumpFile {
  enum class Page { not_ram, excluded, zero, dumped };
  std::vector<Page> pages;  // by frame
  KdumpCodec codec = KdumpCodec::zlib;
  std::string notes, vmcoreinfo;
  std::uint32_t status = 0;
  std::string bytes() const;
};

/// makedumpfile.h, makedumpfile_header and makedumpfile_data_header: pieces of `size`, the first of
/// them written once more at the end, as makedumpfile does with its header.
std::string flattened(std::string_view dump, std::size_t size);

std::string gzipped(std::string_view bytes);
std::string zstd_packed(std::string_view bytes);

/// libvirt, src/qemu/qemu_saveimage.h.
std::string saved_domain(std::string_view xml, std::string_view stream);

/// A suspended state of VMware: the tags of its group "memory".
struct VmwareRegion {
  std::uint32_t frame = 0, page = 0, pages = 0;
};
std::string vmware_state(const std::vector<VmwareRegion>& regions);

}  // namespace vmsight::test
