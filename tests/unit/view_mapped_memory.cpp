#include <gtest/gtest.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>

#include "view/mapped_memory.h"
#include "vmsight/view.h"

namespace vmsight::view_mapped_memory_test {
namespace {

/// A memory image in a memfd; page i begins with the u64 1000 + i.
class ImageFile {
 public:
  explicit ImageFile(std::size_t size) : fd_(::memfd_create("image", MFD_CLOEXEC)) {
    EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(size)), 0);
  }
  std::string path() const { return fmt::format("/proc/self/fd/{}", fd_.get()); }
  int fd() const { return fd_.get(); }
  void put(std::uint64_t offset, std::uint64_t value) {
    EXPECT_EQ(::pwrite(fd_.get(), &value, sizeof(value), static_cast<off_t>(offset)), 8);
  }
  Image image(std::vector<ImageSegment> segments) const {
    Image image{.path = path(), .format = "raw", .segments = segments};
    std::vector<RamRange> ranges;
    for (const ImageSegment& s : segments) ranges.push_back({.start = s.start, .size = s.size});
    if (auto ram = RamMap::from(ranges)) image.ram = *ram;
    return image;
  }

 private:
  UniqueFd fd_;
};

std::optional<std::uint64_t> value(GuestMemory& memory, std::uint64_t address) {
  std::uint64_t value = 0;
  if (!read_phys(memory, GuestPhys(address), std::as_writable_bytes(std::span(&value, 1)))) {
    return std::nullopt;
  }
  return value;
}

Result<std::uint64_t> scanned(GuestMemory& memory, std::uint64_t address) {
  std::uint64_t value = 0;
  VMSIGHT_TRY_VOID(memory.scan(GuestPhys(address), std::as_writable_bytes(std::span(&value, 1))));
  return value;
}

constexpr std::uint64_t gib = 1ULL << 30;

TEST(FileView, ReadsSegmentsAcrossTheHole) {
  ImageFile file(8 * page_size);
  for (std::uint64_t i = 0; i < 8; ++i) file.put(i * page_size, 1000 + i);
  const Image image =
      file.image({{GuestPhys(0), 4 * page_size, 0, 4 * page_size},
                  {GuestPhys(4 * gib), 4 * page_size, 4 * page_size, 4 * page_size}});
  auto memory = *open_file_view(image);
  EXPECT_EQ(memory->technique(), "file");
  EXPECT_FALSE(memory->is_live());
  EXPECT_EQ(value(*memory, 0), 1000U);
  EXPECT_EQ(value(*memory, 3 * page_size), 1003U);
  EXPECT_EQ(value(*memory, 4 * page_size), std::nullopt);
  EXPECT_EQ(value(*memory, 4 * gib + page_size), 1005U);
  EXPECT_EQ(*scanned(*memory, 4 * gib + page_size), 1005U);
  ASSERT_FALSE(scanned(*memory, 4 * page_size));
  EXPECT_EQ(scanned(*memory, 4 * page_size).error().code, ErrorCode::fault);
  EXPECT_TRUE(memory->health());
}

TEST(FileView, CountsDistinctPagesOfAView) {
  ImageFile file(200 * page_size);
  auto memory = *open_file_view(file.image({{GuestPhys(0), 200 * page_size, 0, 200 * page_size}}));
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t page = 0; page < 200; page += 2) value(*memory, page * page_size);
  }
  EXPECT_EQ(memory->counters().pages, 100U);
  EXPECT_EQ(memory->counters().bytes, 100 * page_size);
  ASSERT_TRUE(memory->refresh());
  EXPECT_EQ(memory->counters().pages, 0U);
  value(*memory, 0);
  EXPECT_EQ(memory->counters().pages, 1U);
}

TEST(FileView, UnalignedSegmentsAndZeroTails) {
  // An ELF core's PT_LOAD: begins anywhere in the file, and memsz > filesz.
  ImageFile file(3 * page_size);
  file.put(100, 1);
  file.put(100 + page_size, 2);
  file.put(100 + page_size + 496, 3);  // the last 8 bytes that the file holds
  auto memory = *open_file_view(
      file.image({{GuestPhys(0), 5 * page_size, 100, page_size + 504, ImageRest::zeros}}));
  EXPECT_EQ(value(*memory, 0), 1U);
  EXPECT_EQ(value(*memory, page_size), 2U);
  EXPECT_EQ(value(*memory, page_size + 496), 3U);
  EXPECT_EQ(value(*memory, page_size + 504), 0U);
  EXPECT_EQ(value(*memory, 4 * page_size), 0U);
  EXPECT_EQ(value(*memory, 5 * page_size), std::nullopt);
  EXPECT_EQ(*scanned(*memory, page_size + 496), 3U);
  EXPECT_EQ(*scanned(*memory, 4 * page_size + 8), 0U);
}

TEST(FileView, WhatWasLeftOutIsMissingNotZero) {
  ImageFile file(4 * page_size);
  file.put(page_size, 1);
  file.put(2 * page_size, 2);
  const ImageSegment partly{GuestPhys(0), 4 * page_size, page_size, page_size + 504};
  const ImageSegment wholly{GuestPhys(gib), gib, 0, 0};
  auto memory = *open_file_view(file.image({partly, wholly}));
  EXPECT_EQ(value(*memory, 0), 1U);
  EXPECT_EQ(value(*memory, page_size), std::nullopt) << "only a part of the page is there";
  EXPECT_EQ(value(*memory, 3 * page_size), std::nullopt);
  EXPECT_EQ(value(*memory, gib), std::nullopt);
  EXPECT_FALSE(scanned(*memory, page_size));
  EXPECT_EQ(scanned(*memory, gib + 8).error().code, ErrorCode::fault);
  const auto populated = *memory->populated();
  ASSERT_EQ(populated.size(), 1U);
  EXPECT_EQ(populated[0].size, page_size);
  EXPECT_TRUE(memory->health()) << "the VM is not gone";
}

TEST(FileView, PagesBeyondTheEndOfTheFileAreMissingNotZero) {
  ImageFile file(2 * page_size + 100);
  file.put(0, 1);
  auto memory = *open_file_view(file.image({{GuestPhys(0), 4 * page_size, 0, 4 * page_size}}));
  EXPECT_EQ(value(*memory, 0), 1U);
  EXPECT_EQ(value(*memory, 2 * page_size), std::nullopt);
  EXPECT_EQ(value(*memory, 3 * page_size), std::nullopt);
  EXPECT_FALSE(scanned(*memory, 3 * page_size));
}

TEST(FileView, HugeForgedSegmentsCostNothing) {
  ImageFile file(page_size);
  auto memory =
      open_file_view(file.image({{GuestPhys(0), 1ULL << 44, 0, page_size, ImageRest::zeros}}));
  if (!memory) return;  // no address space for the counters: an error is fine as well
  EXPECT_EQ(value(**memory, (1ULL << 43) + 8), 0U);
  EXPECT_FALSE(
      open_file_view(file.image({{GuestPhys(0), ~0ULL << 12, ~0ULL, ~0ULL}})).has_value() &&
      value(**open_file_view(file.image({{GuestPhys(0), ~0ULL << 12, ~0ULL, ~0ULL}})), 0));
}

TEST(FileView, OverlappingSegmentsKeepTheFirst) {
  ImageFile file(8 * page_size);
  for (std::uint64_t i = 0; i < 8; ++i) file.put(i * page_size, 1000 + i);
  Image image = file.image({{GuestPhys(0), 6 * page_size, 0, 6 * page_size}});
  image.segments = {{GuestPhys(2 * page_size), 4 * page_size, 4 * page_size, 4 * page_size},
                    {GuestPhys(0), 4 * page_size, 0, 4 * page_size}};
  auto memory = *open_file_view(image);
  EXPECT_EQ(value(*memory, 3 * page_size), 1003U);
  EXPECT_EQ(value(*memory, 4 * page_size), 1006U);
}

TEST(FileView, SaysWhatIsWrongWithTheFile) {
  EXPECT_EQ(open_file_view({.path = "/nonexistent/image"}).error().os_errno, ENOENT);
  EXPECT_EQ(open_file_view({.path = "/dev/null"}).error().code, ErrorCode::unsupported);
  ImageFile file(page_size);
  EXPECT_EQ(open_file_view(file.image({{GuestPhys(12), page_size, 0, page_size}})).error().code,
            ErrorCode::bad_data);
}

TEST(FileView, PopulatedAndScanLeaveHolesAlone) {
  ImageFile file(64 * page_size);
  file.put(5 * page_size, 5);
  file.put(40 * page_size, 40);
  struct stat before {
  }, after{};
  ASSERT_EQ(::fstat(file.fd(), &before), 0);
  auto memory = *open_file_view(file.image({{GuestPhys(0), 64 * page_size, 0, 64 * page_size}}));
  const auto runs = *memory->populated();
  ASSERT_EQ(runs.size(), 2U);
  EXPECT_EQ(runs[0].start, GuestPhys(5 * page_size));
  EXPECT_EQ(runs[0].size, page_size);
  EXPECT_EQ(runs[1].start, GuestPhys(40 * page_size));
  std::vector<std::byte> all(64 * page_size, std::byte{1});
  ASSERT_TRUE(memory->scan(GuestPhys(0), all));
  EXPECT_EQ(all[5 * page_size], std::byte{5});
  EXPECT_EQ(all[6 * page_size], std::byte{0});
  ASSERT_EQ(::fstat(file.fd(), &after), 0);
  EXPECT_EQ(after.st_blocks, before.st_blocks);
}

TEST(SigbusGuard, ATruncatedFileReadsAsZerosAndIsReported) {
  ImageFile file(16 * page_size);
  for (std::uint64_t i = 0; i < 16; ++i) file.put(i * page_size, 1000 + i);
  auto memory = *open_file_view(file.image({{GuestPhys(0), 16 * page_size, 0, 16 * page_size}}));
  EXPECT_EQ(value(*memory, 12 * page_size), 1012U);
  ASSERT_EQ(::ftruncate(file.fd(), 4 * page_size), 0);
  EXPECT_TRUE(memory->health());
  EXPECT_EQ(value(*memory, 12 * page_size), 0U);
  ASSERT_FALSE(memory->health());
  EXPECT_EQ(memory->health().error().code, ErrorCode::os);
  EXPECT_EQ(value(*memory, 3 * page_size), 1003U) << "the rest goes on";
  EXPECT_FALSE(scanned(*memory, 12 * page_size));
}

/// Killed by the signal, or ended by the handler of a sanitizer, which was there before ours.
bool died_of_sigbus(int status) {
  return WIFSIGNALED(status) ? WTERMSIG(status) == SIGBUS : WEXITSTATUS(status) != 0;
}

TEST(SigbusGuardDeathTest, OtherBusErrorsStillKill) {
  ImageFile file(page_size);
  auto guarded = *GuardedMapping::map(file.fd(), 0, page_size);  // installs the handler
  EXPECT_EXIT(::raise(SIGBUS), died_of_sigbus, "");
  ImageFile other(page_size);
  void* own = ::mmap(nullptr, page_size, PROT_READ, MAP_SHARED, other.fd(), 0);
  ASSERT_NE(own, MAP_FAILED);
  ASSERT_EQ(::ftruncate(other.fd(), 0), 0);
  EXPECT_EXIT(static_cast<void>(*static_cast<volatile char*>(own)), died_of_sigbus, "");
  ::munmap(own, page_size);
}

TEST(SigbusGuard, MovesAndComesBack) {
  ImageFile file(page_size);
  for (int i = 0; i < 3000; ++i) {  // more than the handler's table holds at once
    auto mapping = GuardedMapping::map(file.fd(), 0, page_size);
    ASSERT_TRUE(mapping);
    GuardedMapping moved = *std::move(mapping);
    EXPECT_FALSE(moved.damaged());
  }
}

/// Pages for the test where the machine has none; as many as before at the end.
class HugePages {
 public:
  explicit HugePages(unsigned wanted) {
    std::ifstream(setting) >> before_;
    if (before_ < wanted) std::ofstream(setting) << wanted;
  }
  ~HugePages() { std::ofstream(setting) << before_; }

 private:
  static constexpr const char* setting = "/proc/sys/vm/nr_hugepages";
  unsigned before_ = 0;
};

TEST(GuardedMappingTest, MapsPartsOfHugePages) {
  constexpr std::uint64_t huge = 2U << 20;
  const HugePages pages(2);
  const UniqueFd fd(::memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB));
  ASSERT_TRUE(fd) << "a kernel without huge pages";
  ASSERT_EQ(::ftruncate(fd.get(), 2 * huge), 0);
  void* writable = ::mmap(nullptr, 2 * huge, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (writable == MAP_FAILED) GTEST_SKIP() << "only root can reserve huge pages";
  Mapping mapping(writable, 2 * huge);
  const std::span<std::byte> bytes = mapping.mutable_bytes();
  bytes[0xc0000] = std::byte{1};
  bytes[huge] = std::byte{2};
  bytes[huge + 0x2fff] = std::byte{3};
  // As the RAM behind the hole for video memory: neither end is a multiple of 2 MiB.
  const auto mapped = GuardedMapping::map(fd.get(), 0xc0000, huge - 0xc0000 + 0x3000);
  ASSERT_TRUE(mapped) << mapped.error().message;
  ASSERT_EQ(mapped->bytes().size(), huge - 0xc0000 + 0x3000);
  EXPECT_EQ(mapped->bytes().front(), std::byte{1});
  EXPECT_EQ(mapped->bytes()[huge - 0xc0000], std::byte{2});
  EXPECT_EQ(mapped->bytes().back(), std::byte{3});
  EXPECT_FALSE(mapped->damaged());
}

}  // namespace
}  // namespace vmsight::view_mapped_memory_test
