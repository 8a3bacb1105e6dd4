// Any file as a memory image: what is accepted lies within the file, or it is said.
#include <sys/mman.h>
#include <unistd.h>

#include "base/os.h"
#include "vmsight/vm.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmsight;
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  VMSIGHT_CHECK(file && ::write(file.get(), data, size) == static_cast<ssize_t>(size));
  // Images are megabytes long; what the input does not give is a hole.
  constexpr std::uint64_t file_size = 3u << 20;
  VMSIGHT_CHECK(size > file_size || ::ftruncate(file.get(), file_size) == 0);
  const auto image = open_image(fmt::format("/proc/self/fd/{}", file.get()));
  if (!image) return 0;
  for (const ImageSegment& segment : image->segments) {
    VMSIGHT_CHECK(segment.file_size <= segment.size);
    const std::uint64_t end = segment.file_offset + segment.file_size;
    VMSIGHT_CHECK(end >= segment.file_offset);
    VMSIGHT_CHECK(end <= std::max<std::uint64_t>(size, file_size) || !image->problems.empty());
  }
  return 0;
}
