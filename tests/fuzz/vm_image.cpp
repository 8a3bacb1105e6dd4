// Any file as a memory image: what is accepted lies within the file.
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
    VMSIGHT_CHECK(segment.file_offset + segment.file_size <=
                  std::max<std::uint64_t>(size, file_size));
  }
  return 0;
}
