// LiME's format=lime (https://github.com/504ensicsLabs/LiME, doc/README.md): ranges of RAM, each
// after a header of 32 bytes: u32 magic, u32 version 1, u64 first and last address (inclusive), u64
// reserved.
#include <fmt/format.h>

#include "image/image_format.h"

namespace vmsight {
namespace {

constexpr std::uint32_t lime_magic = 0x4c694d45, lime_version = 1;
constexpr std::uint64_t lime_header = 32;
constexpr std::size_t most_ranges = 1U << 16;

bool is_lime(const ImageSource& source) { return source.start.starts_with("EMiL"); }

struct LimeRange {
  std::uint64_t first = 0, last = 0;
};

Result<LimeRange> lime_range_at(const ImageBytes& bytes, std::uint64_t at) {
  VMSIGHT_TRY(const auto magic, number_at<std::uint32_t>(bytes, at));
  VMSIGHT_TRY(const auto version, number_at<std::uint32_t>(bytes, at + 4));
  VMSIGHT_TRY(const auto first, number_at<std::uint64_t>(bytes, at + 8));
  VMSIGHT_TRY(const auto last, number_at<std::uint64_t>(bytes, at + 16));
  const bool fits = magic == lime_magic && version == lime_version && first <= last &&
                    last - first < static_cast<std::uint64_t>(INT64_MAX);
  if (fits) return LimeRange{first, last};
  return Error{.code = ErrorCode::bad_data,
               .message = fmt::format("read LiME dump: no header of a range at {:#x}", at)};
}

Result<Image> read_lime(const ImageSource& source) {
  const ImageBytes& bytes = *source.bytes;
  Image image{.format = "lime"};
  std::uint64_t at = 0, missing = 0;
  while (at < bytes.size()) {
    const auto range = lime_range_at(bytes, at);
    if (!range && at == 0) return range.error();
    if (!range || image.segments.size() >= most_ranges) {
      image.problems.push_back(
          fmt::format("no range begins at {:#x}, where the one before ends: "
                      "memory may be missing",
                      at));
      break;
    }
    const std::uint64_t size = range->last - range->first + 1;
    const std::uint64_t held = std::min(size, bytes.size() - at - lime_header);
    missing += size - held;
    VMSIGHT_TRY_VOID(add_segment(image, {range->first, size, at + lime_header, size}));
    at += lime_header + held;
  }
  if (missing > 0) {
    image.problems.push_back(
        fmt::format("the file ends too early: {} bytes of memory are missing", missing));
  }
  if (!image.segments.empty()) return image;
  return Error{.code = ErrorCode::bad_data, .message = "read LiME dump: no memory in it"};
}

}  // namespace

extern const ImageFormat lime_format;
const ImageFormat lime_format{is_lime, read_lime};

}  // namespace vmsight
