// Any file as a memory image, of any format: what is accepted lies within the file, or it is said;
// page() and scan() agree; nothing is read outside.
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/os.h"
#include "image/image_bytes.h"
#include "vmsight/view.h"

namespace {

using namespace vmsight;

void read_page(GuestMemory& memory, GuestPhys at) {
  const std::byte* page = memory.page(at);
  std::array<std::byte, page_size> copy;
  const auto scanned = memory.scan(at.page(), copy);
  VMSIGHT_CHECK(scanned.has_value() == (page != nullptr));
  if (page != nullptr) VMSIGHT_CHECK(std::memcmp(page, copy.data(), page_size) == 0);
}

void check_segments(const Image& image) {
  const std::uint64_t size = image.bytes->size();
  for (const ImageSegment& segment : image.segments) {
    VMSIGHT_CHECK(segment.file_size <= segment.size);
    const std::uint64_t end = segment.file_offset + segment.file_size;
    VMSIGHT_CHECK(end >= segment.file_offset);
    VMSIGHT_CHECK(end <= size || !image.problems.empty());
  }
}

void open(const UniqueFd& file) {
  const auto image = open_image(fmt::format("/proc/self/fd/{}", file.get()));
  if (!image) return;
  check_segments(*image);
  auto memory = open_file_view(*image);
  if (!memory) return;
  std::size_t looked_at = 0;
  for (const ImageSegment& segment : image->segments) {
    if (++looked_at > 16) break;
    for (const std::uint64_t at :
         {segment.start.raw(), segment.start.raw() + segment.file_size,
          segment.start.raw() + segment.size - 1, segment.start.raw() + segment.size / 2}) {
      read_page(**memory, GuestPhys(at));
    }
  }
  if (const auto populated = (*memory)->populated()) {
    for (const PhysRange& range : *populated) {
      if (++looked_at > 64) break;
      read_page(**memory, range.start);
    }
  }
  static_cast<void>((*memory)->health());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  VMSIGHT_CHECK(file && ::write(file.get(), data, size) == static_cast<ssize_t>(size));
  open(file);
  // Raw images are megabytes long; what the input does not give is a hole. As packed bytes it would
  // be gigabytes of memory.
  constexpr std::uint64_t file_size = 3U << 20;
  const bool packed = size > 0 && (data[0] == 0x1f || data[0] == 0x28);
  if (packed) return 0;
  VMSIGHT_CHECK(size > file_size || ::ftruncate(file.get(), file_size) == 0);
  open(file);
  return 0;
}
