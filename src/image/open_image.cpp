// open_image: a memory image as a set of guest-physical segments.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "image/foreign.h"
#include "image/image_format.h"

namespace vmsight {
namespace {

constexpr unsigned max_wrappers = 4;  // gzip around a flattened core ..., but no bomb of archives

Result<std::string> first_bytes(const ImageBytes& bytes) {
  std::string start(std::min<std::uint64_t>(64, bytes.size()), '\0');
  VMSIGHT_TRY_VOID(bytes.read(0, std::as_writable_bytes(std::span(start))));
  return start;
}

Result<Image> read_source(const ImageSource& source) {
  for (const ImageFormat* format : image_formats()) {
    if (!format->is_one(source)) continue;
    VMSIGHT_TRY(Image image, format->read(source));
    if (image.bytes == nullptr) image.bytes = source.bytes;
    return image;
  }
  if (auto error = foreign_image(source.start)) return *std::move(error);
  VMSIGHT_TRY(Image image, read_raw_memory(*source.bytes));
  image.bytes = source.bytes;
  return image;
}

Result<RamMap> ram_of(const std::vector<ImageSegment>& segments) {
  std::vector<RamRange> ranges;
  for (const ImageSegment& segment : segments) {
    RamRange range{segment.start, segment.size, "", segment.file_offset};
    if (!ranges.empty() && ranges.back().end() == range.start)
      ranges.back().size += range.size;
    else
      ranges.push_back(std::move(range));
  }
  return RamMap::from(std::move(ranges));
}

/// What lies beyond the bytes of a segment is absent, or zero if the user says so.
void settle_absent(Image& image, const ImageOptions& options) {
  for (ImageSegment& segment : image.segments) {
    if (segment.rest != ImageRest::missing) continue;
    if (options.absent_is_zero)
      segment.rest = ImageRest::zeros;
    else
      image.absent_bytes += segment.size - (segment.file_size & ~(page_size - 1));
  }
  if (image.absent_bytes == 0) return;
  image.problems.push_back(fmt::format(
      "{} bytes of memory ({} MiB) were left out of the image: what they were is unknown",
      image.absent_bytes, image.absent_bytes >> 20));
}

/// What cannot be there beside each other, from the first address on.
void sort_segments(std::vector<ImageSegment>& segments) {
  std::stable_sort(segments.begin(), segments.end(),
                   [](const ImageSegment& a, const ImageSegment& b) { return a.start < b.start; });
}

Error with_path(const std::string& path, Error error) {
  error.message = path + ": " + error.message;
  return error;
}

}  // namespace

Result<Image> read_wrapped(const ImageSource& outer, SharedBytes inner, std::string_view wrapper) {
  if (outer.depth >= max_wrappers) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "read image: it is packed into itself too often"};
  }
  VMSIGHT_TRY(std::string start, first_bytes(*inner));
  VMSIGHT_TRY(Image image, read_source({.bytes = std::move(inner),
                                        .start = std::move(start),
                                        .file = outer.file,
                                        .options = outer.options,
                                        .depth = outer.depth + 1}));
  image.format += fmt::format(", {}", wrapper);
  return image;
}

Result<void> add_segment(Image& image, const SegmentBytes& from) {
  const Error wraps{.code = ErrorCode::bad_data, .message = "read image: a segment wraps around"};
  const std::uint64_t skip = (page_size - from.start % page_size) % page_size;
  if (from.size < skip + page_size) return {};
  constexpr std::uint64_t max_offset = INT64_MAX;  // of any file
  if (from.offset > max_offset) return wraps;
  ImageSegment segment;
  segment.start = GuestPhys(from.start) + skip;
  segment.size = (from.size - skip) & ~(page_size - 1);
  segment.file_offset = from.offset + skip;
  segment.file_size = std::min(segment.size, from.file_size - std::min(skip, from.file_size));
  if (from.start > ~skip || !segment.start.checked_add(segment.size)) return wraps;
  if (segment.file_size == 0) segment.file_offset = 0;
  if (segment.file_offset > max_offset || segment.file_size > max_offset - segment.file_offset) {
    return wraps;
  }
  image.segments.push_back(segment);
  return {};
}

namespace {

constexpr std::size_t scratch_files = 2;  // libvirt's, packed, and packed once more

/// A look at the first bytes, as any format's.
bool may_be_packed(std::string_view start) {
  constexpr std::string_view packed[] = {"\x1f\x8b\x08", "\x28\xb5\x2f\xfd", "LibvirtQemud"};
  return std::ranges::any_of(packed,
                             [&](std::string_view magic) { return start.starts_with(magic); });
}

}  // namespace

Result<std::shared_ptr<ImageFile>> open_image_file(const std::string& path) {
  auto file = std::make_shared<ImageFile>();
  file->path = path;
  VMSIGHT_TRY(file->bytes, open_plain_file(path));
  if (const std::string state = vmware_state_beside(path); !state.empty()) {
    VMSIGHT_TRY(file->state, open_plain_file(state));
  }
  const auto start = first_bytes(*file->bytes);
  for (std::size_t i = 0; start && may_be_packed(*start) && i < scratch_files; ++i) {
    auto scratch = make_scratch_file();
    if (scratch)
      file->scratch.push_back(*std::move(scratch));
    else
      file->no_scratch = std::move(scratch).error();
  }
  return file;
}

Result<Image> read_image(ImageFile& file, const ImageOptions& options) {
  auto start = first_bytes(*file.bytes);
  if (!start) return with_path(file.path, std::move(start).error());
  auto image = read_source(
      {.bytes = file.bytes, .start = *std::move(start), .file = file, .options = options});
  if (!image) return with_path(file.path, std::move(image).error());
  image->path = file.path;
  sort_segments(image->segments);
  settle_absent(*image, options);
  auto ram = ram_of(image->segments);
  if (!ram) return with_path(file.path, std::move(ram).error());
  image->ram = *std::move(ram);
  return image;
}

std::vector<int> outputs_of(const ImageFile& file) {
  std::vector<int> all;
  for (const ScratchFile& scratch : file.scratch) all.push_back(scratch.write.get());
  return all;
}

Result<Image> open_image(const std::string& path, const ImageOptions& options) {
  VMSIGHT_TRY(const auto file, open_image_file(path));
  return read_image(*file, options);
}

namespace {

std::optional<std::uint64_t> number_of(std::string_view text) {
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  if (hex) text.remove_prefix(2);
  std::uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, hex ? 16 : 10);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<ImageRange> range_of(std::string_view text) {
  const std::size_t dash = text.find('-');
  if (dash == text.npos) return std::nullopt;
  const auto start = number_of(text.substr(0, dash));
  const auto end = number_of(text.substr(dash + 1));
  if (!start || !end || *start >= *end) return std::nullopt;
  if (*start % page_size != 0 || *end % page_size != 0) return std::nullopt;
  return ImageRange{GuestPhys(*start), GuestPhys(*end)};
}

}  // namespace

Result<std::vector<ImageRange>> parse_image_ranges(std::string_view text) {
  std::vector<ImageRange> ranges;
  while (true) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const auto range = range_of(text.substr(0, comma));
    if (!range) {
      return Error{.code = ErrorCode::usage,
                   .message = fmt::format("'{}' is not a range of whole pages",
                                          text.substr(0, std::min<std::size_t>(comma, 60))),
                   .hint = "as in 0x1000-0xa0000,0x100000-0x40000000; the end is exclusive"};
    }
    ranges.push_back(*range);
    if (comma == text.size()) return ranges;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace vmsight
