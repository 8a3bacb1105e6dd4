// Memory images on disk: what of guest-physical memory they hold, and what else they tell.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/memory.h"
#include "vmsight/result.h"
#include "vmsight/vm.h"

namespace VMSIGHT_PUBLIC vmsight {

/// What the bytes of a segment are that its image does not hold.
enum class ImageRest : std::uint8_t {
  missing,  // they were left out: nobody knows them, and reading them fails
  zeros,
};

/// A run of guest memory within an image. `file_offset` counts in the image's bytes as they are
/// after unpacking.
struct ImageSegment {
  GuestPhys start;
  std::uint64_t size = 0;  // bytes of guest memory
  std::uint64_t file_offset = 0;
  std::uint64_t file_size = 0;  // bytes in the file; `rest` says what the others are
  ImageRest rest = ImageRest::missing;
};

/// The bytes of an image, wherever they come from; defined in src/image.
class ImageBytes;

struct Image {
  std::string path;
  std::string format;  // "raw", "elf", "lime", "kdump" ...; "elf, gzip" if it was wrapped
  std::vector<ImageSegment> segments;
  RamMap ram;
  std::vector<VcpuRegisters> registers;  // from notes of QEMU or VirtualBox, if there are any
  std::string vmcoreinfo;                // text of the VMCOREINFO note, "" if none
  /// The page table of the kernel that was read when `vmsight snapshot` took the image.
  std::optional<GuestPhys> kernel_page_table;
  std::vector<std::string> problems;  // what of the image is missing
  /// Bytes of RAM that whoever wrote the image left out of it; `problems` says so too.
  std::uint64_t absent_bytes = 0;
  /// What the segments are in. Null: the file `path` itself.
  std::shared_ptr<const ImageBytes> bytes;
};

/// A range of guest-physical addresses, half open.
struct ImageRange {
  GuestPhys start, end;
};

struct ImageOptions {
  /// What a dump left out reads as zeros, as far as the program that wrote it is trusted to have
  /// left out nothing but zeros.
  bool absent_is_zero = false;
  /// Of a file without any header: the ranges of RAM whose bytes follow each other in it.
  std::vector<ImageRange> ranges;
  /// Long work, such as unpacking, says what it does.
  std::function<void(std::string_view)> progress;
  /// Told once what was done beside reading: that the image was unpacked, and where to.
  std::function<void(std::string_view)> said;
};

/// An image's file, open and not looked at yet; defined in src/image.
struct ImageFile;
/// os; unsupported if it is no regular file. Nothing of what is in it is interpreted.
Result<std::shared_ptr<ImageFile>> open_image_file(const std::string& path);
/// What is in it; opens nothing more. Errors as of open_image().
Result<Image> read_image(ImageFile& file, const ImageOptions& options = {});
/// Files that it writes to while it unpacks.
std::vector<int> outputs_of(const ImageFile& file);

/// Both: a memory image of any format that src/image/formats.cpp lists. unsupported, with what it is
/// and what to do, for other files.
Result<Image> open_image(const std::string& path, const ImageOptions& options = {});

/// "START-END,...", hexadecimal or decimal, END exclusive: whole pages, in the order of the file.
Result<std::vector<ImageRange>> parse_image_ranges(std::string_view text);

}  // namespace vmsight
