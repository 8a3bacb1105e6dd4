// A format of memory images is one file of this folder: it recognises its files and says what is
// where in them. formats.cpp lists all of them. Images are not trusted: every size and offset in
// them is checked before it is used.
//
//   file -> ImageBytes -> format (wraps another?) -> ImageBytes -> format -> Image
//                         gzip, flattened ...                      elf, lime, kdump ...
#pragma once

#include <string>
#include <string_view>

#include "image/image_bytes.h"
#include "image/image_file.h"
#include "vmsight/image.h"

namespace vmsight {

/// What is asked of a format: its bytes, and what was said about them.
struct ImageSource {
  SharedBytes bytes;
  std::string start;  // the first bytes, at most 64
  ImageFile& file;    // the one that was named, and what was opened with it
  const ImageOptions& options;
  unsigned depth = 0;  // how many wrappers are around these bytes
};

struct ImageFormat {
  /// Must be cheap: it is asked for every file.
  bool (*is_one)(const ImageSource& source);
  /// The segments, registers and so on. Whoever calls it fills in path, ram and what is absent by
  /// the segments. `bytes` is left null if the segments are in source.bytes.
  Result<Image> (*read)(const ImageSource& source);
};

/// The formats, in the order in which they are tried.
std::span<const ImageFormat* const> image_formats();

/// What a wrapper calls for the bytes in it; `wrapper` goes into the name of the format.
Result<Image> read_wrapped(const ImageSource& outer, SharedBytes inner, std::string_view wrapper);

/// RAM without any header (raw_image.cpp): also what wrappers of bare RAM want.
Result<Image> read_raw_memory(const ImageBytes& bytes);

/// "x.vmss" or "x.vmsn" for "x.vmem", whichever is there; "" if neither is.
std::string vmware_state_beside(const std::string& path);

/// Adds memory to the image, cut to whole pages. bad_data if it wraps around.
struct SegmentBytes {
  std::uint64_t start = 0, size = 0;        // guest-physical
  std::uint64_t offset = 0, file_size = 0;  // in the image's bytes
};
Result<void> add_segment(Image& image, const SegmentBytes& segment);

/// ELF notes: registers of the vCPUs by QEMU and VirtualBox, VMCOREINFO, the kernel that was read.
/// Tells who wrote them, where that matters.
enum class NoteWriter : std::uint8_t { other, virtualbox };
NoteWriter read_notes(std::span<const std::byte> notes, Image& image);

}  // namespace vmsight
