// An image with arbitrary segments over an arbitrary file: every page is from the file, zeros or
// missing; page() and scan() agree; nothing is read outside the file.
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/os.h"
#include "support/fuzz_input.h"
#include "vmsight/view.h"

namespace {

using namespace vmsight;

std::uint64_t take_number(test::FuzzInput& input) {
  const auto kind = input.take<std::uint8_t>();
  if (kind < 200) return kind * page_size / 4;
  return input.take<std::uint64_t>();
}

Image take_image(test::FuzzInput& input) {
  Image image{.format = "elf"};
  std::vector<RamRange> ranges;
  const std::uint64_t count = input.take_in(0, 6);
  for (std::uint64_t i = 0; i < count; ++i) {
    image.segments.push_back({.start = GuestPhys(take_number(input)),
                              .size = take_number(input),
                              .file_offset = take_number(input),
                              .file_size = take_number(input),
                              .rest = (count & 1) != 0 ? ImageRest::zeros : ImageRest::missing});
    ranges.push_back({.start = image.segments.back().start, .size = image.segments.back().size});
    // The RAM map may disagree with the segments.
    if (auto ram = RamMap::from(ranges)) image.ram = *ram;
  }
  return image;
}

void read_page(GuestMemory& memory, GuestPhys at) {
  const std::byte* page = memory.page(at);
  std::array<std::byte, page_size> copy;
  const auto scanned = memory.scan(at.page(), copy);
  if (page == nullptr) return;
  VMSIGHT_CHECK(scanned.has_value());
  VMSIGHT_CHECK(std::memcmp(page, copy.data(), page_size) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  VMSIGHT_CHECK(survive_lost_memory().has_value());
  test::FuzzInput input(data, size);
  Image image = take_image(input);
  const std::span<const std::byte> bytes = input.take_rest();
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  VMSIGHT_CHECK(file && ::write(file.get(), bytes.data(), bytes.size()) ==
                            static_cast<ssize_t>(bytes.size()));
  image.path = fmt::format("/proc/self/fd/{}", file.get());
  auto memory = open_file_view(image);
  if (!memory) return 0;
  for (const ImageSegment& segment : image.segments) {
    for (const std::uint64_t at :
         {segment.start.raw(), segment.start.raw() + segment.file_size,
          segment.start.raw() + segment.size - 1, segment.start.raw() + segment.size}) {
      read_page(**memory, GuestPhys(at));
    }
  }
  VMSIGHT_CHECK((*memory)->health().has_value());
  static_cast<void>((*memory)->populated());
  return 0;
}
