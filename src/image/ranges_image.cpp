// Ranges of RAM one after the other, without any header (LiME's format=raw): the user tells which.
#include <fmt/format.h>

#include "image/image_format.h"

namespace vmsight {
namespace {

bool has_ranges(const ImageSource& source) {
  return source.depth == 0 && !source.options.ranges.empty();
}

Result<Image> read_ranges(const ImageSource& source) {
  Image image{.format = "ranges"};
  std::uint64_t offset = 0;
  for (const ImageRange& range : source.options.ranges) {
    const std::uint64_t size = range.end - range.start;
    VMSIGHT_TRY_VOID(add_segment(image, {range.start.raw(), size, offset, size}));
    offset += size;
  }
  if (offset == source.bytes->size()) return image;
  return Error{.code = ErrorCode::usage,
               .message = fmt::format("read image: the ranges have {} bytes, the file {}", offset,
                                      source.bytes->size()),
               .hint =
                   "LiME wrote the ranges \"System RAM\" of the guest's /proc/iomem; their ends "
                   "there are inclusive"};
}

}  // namespace

extern const ImageFormat ranges_format;
const ImageFormat ranges_format{has_ranges, read_ranges};

}  // namespace vmsight
