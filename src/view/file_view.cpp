// file: a memory image, mapped. Its segments need not be aligned in the file, may be shorter
// there than in memory (the rest is zeros), and may lie beyond its end (then they are missing).
//
//   guest   [ whole pages of the file | page with the end of the file part | zeros ........ ]
//   from    [ the mapping             | a buffer of ours                   | one zero page  ]
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "view/file_view.h"
#include "vmsight/view.h"

namespace vmsight {
namespace {

struct Opened {
  UniqueFd fd;
  std::uint64_t size = 0;
};

Result<Opened> open_file(const std::string& path) {
  Opened file;
  file.fd = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.fd) return os_error(errno, "open " + path);
  struct stat st {};
  if (::fstat(file.fd.get(), &st) != 0) return os_error(errno, "look at " + path);
  if (!S_ISREG(st.st_mode)) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "open " + path + ": not a regular file"};
  }
  if (st.st_size == 0) return Error{.code = ErrorCode::bad_data, .message = path + " is empty"};
  file.size = static_cast<std::uint64_t>(st.st_size);
  return file;
}

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
  if (whole > 0) {
    parts.ranges.push_back({segment.start, whole, file.data() + segment.file_offset});
  }
  std::uint64_t done = whole;
  if (held > whole && !truncated) {
    auto edge = std::make_unique<std::byte[]>(page_size);  // zeros
    std::copy_n(file.data() + segment.file_offset + whole, held - whole, edge.get());
    parts.ranges.push_back({segment.start + whole, page_size, edge.get()});
    parts.buffers.push_back(std::move(edge));
    done += page_size;
  }
  if (!truncated && segment.size > done) {
    parts.ranges.push_back({segment.start + done, segment.size - done, zero_page, true});
  }
  // Missing bytes stay inside file_size, so that scanning them is an error, not zeros.
  parts.files.add({.start = segment.start,
                   .size = segment.size,
                   .file_size = std::min(segment.file_size, segment.size),
                   .offset = segment.file_offset,
                   .fd = fd});
}

}  // namespace

Result<void> add_image(MappedMemory::Parts& parts, const Image& image) {
  VMSIGHT_TRY(Opened opened, open_file(image.path));
  VMSIGHT_TRY(GuardedMapping mapping, GuardedMapping::map(opened.fd.get(), 0, opened.size));
  const int fd = parts.files.own(std::move(opened.fd));
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
  MappedMemory::Parts parts{.technique = "file", .live = false, .ram = image.ram};
  VMSIGHT_TRY_VOID(add_image(parts, image));
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> memory, MappedMemory::make(std::move(parts)));
  return memory;
}

}  // namespace vmsight
