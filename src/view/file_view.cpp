// file: a memory image, mapped. Its segments need not be aligned in the file, may be shorter
// there than in memory (the rest is zeros, or absent), and may lie beyond its end (then they are
// missing).
//
//   guest   [ whole pages of the file | page with the end of the file part | zeros ........ ]
//   from    [ the mapping             | a buffer of ours                   | one zero page  ]
//
// Of a segment whose rest is absent only the whole pages are there.
#include "view/file_view.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "image/image_bytes.h"
#include "view/unpacked_memory.h"
#include "vmsight/view.h"

namespace vmsight {
namespace {

/// What is left of a segment after the segments before it: dumps by page tables repeat memory.
std::optional<ImageSegment> without_overlap(ImageSegment segment, GuestPhys covered_to) {
  const std::uint64_t cut = covered_to > segment.start ? covered_to - segment.start : 0;
  if (cut >= segment.size) return std::nullopt;
  segment.start = segment.start + cut;
  segment.size -= cut;
  segment.file_offset += cut;
  segment.file_size -= std::min(cut, segment.file_size);
  return segment;
}

/// Adds one segment to the view.
void add_segment(MappedMemory::Parts& parts, const ImageSegment& segment, int fd,
                 std::span<const std::byte> file, const std::byte* zero_page) {
  const std::uint64_t held = segment.file_offset >= file.size()
                                 ? 0
                                 : std::min<std::uint64_t>({segment.file_size, segment.size,
                                                            file.size() - segment.file_offset});
  const bool truncated = held < std::min(segment.file_size, segment.size);
  const std::uint64_t whole = held & ~(page_size - 1);
  const bool absent = segment.rest == ImageRest::missing && segment.file_size < segment.size;
  if (whole > 0) {
    parts.ranges.push_back({segment.start, whole, file.data() + segment.file_offset});
  }
  std::uint64_t done = whole;
  if (held > whole && !truncated && !absent) {
    auto edge = std::make_unique<std::byte[]>(page_size);  // zeros
    std::copy_n(file.data() + segment.file_offset + whole, held - whole, edge.get());
    parts.ranges.push_back({segment.start + whole, page_size, edge.get()});
    parts.buffers.push_back(std::move(edge));
    done += page_size;
  }
  if (!truncated && !absent && segment.size > done) {
    parts.ranges.push_back({segment.start + done, segment.size - done, zero_page, true});
  }
  // Missing bytes stay inside file_size, so that scanning them is an error, not zeros.
  const std::uint64_t file_size = std::min(segment.file_size, segment.size);
  const std::uint64_t known = file_size & ~(page_size - 1);
  if (absent && known == 0) return;
  parts.files.add({.start = segment.start,
                   .size = absent ? known : segment.size,
                   .file_size = absent ? known : file_size,
                   .offset = segment.file_offset,
                   .fd = fd});
}

}  // namespace

namespace {

Result<SharedBytes> bytes_of(const Image& image) {
  VMSIGHT_TRY(SharedBytes bytes,
              image.bytes ? Result<SharedBytes>(image.bytes) : open_plain_file(image.path));
  if (bytes->size() == 0) {
    return Error{.code = ErrorCode::bad_data, .message = image.path + " is empty"};
  }
  return bytes;
}

Result<UniqueFd> another_descriptor(const ImageBytes& bytes) {
  UniqueFd fd(::fcntl(bytes.descriptor(), F_DUPFD_CLOEXEC, 0));
  if (!fd) return os_error(errno, "open the image");
  return fd;
}

}  // namespace

Result<void> add_image(MappedMemory::Parts& parts, const Image& image) {
  VMSIGHT_TRY(const SharedBytes bytes, bytes_of(image));
  if (bytes->descriptor() < 0) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("map {}: it must be unpacked first", image.path)};
  }
  VMSIGHT_TRY(UniqueFd opened, another_descriptor(*bytes));
  VMSIGHT_TRY(GuardedMapping mapping, GuardedMapping::map(opened.get(), 0, bytes->size()));
  const int fd = parts.files.own(std::move(opened));
  auto zero_page = std::make_unique<std::byte[]>(page_size);

  std::vector<ImageSegment> segments = image.segments;
  std::stable_sort(segments.begin(), segments.end(),
                   [](const ImageSegment& a, const ImageSegment& b) { return a.start < b.start; });
  GuestPhys covered_to{};
  for (const ImageSegment& segment : segments) {
    if (segment.start.page_offset() != 0 || segment.size % page_size != 0 ||
        !segment.start.checked_add(segment.size)) {
      return Error{.code = ErrorCode::bad_data,
                   .message = fmt::format("open {}: segment at {} is not whole pages", image.path,
                                          segment.start)};
    }
    if (const auto rest = without_overlap(segment, covered_to)) {
      add_segment(parts, *rest, fd, mapping.bytes(), zero_page.get());
      covered_to = rest->start + rest->size;
    }
  }
  parts.buffers.push_back(std::move(zero_page));
  parts.mappings.push_back(std::move(mapping));
  return {};
}

Result<std::unique_ptr<GuestMemory>> open_file_view(const Image& image) {
  if (image.bytes && image.bytes->descriptor() < 0) return open_unpacked_view(image);
  MappedMemory::Parts parts{.technique = "file", .live = false, .ram = image.ram};
  VMSIGHT_TRY_VOID(add_image(parts, image));
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> memory, MappedMemory::make(std::move(parts)));
  return memory;
}

}  // namespace vmsight
