// Writes images of a fake guest and opens them as vmsight opens any image.
#include "render/memory_image.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <map>

#include "base/os.h"
#include "vmsight/view.h"

namespace vmsight::render_memory_image_test {
namespace {

/// Two RAM ranges with a hole between; a few pages are not zero.
class FakeMemory : public GuestMemory {
 public:
  FakeMemory() {
    auto map = RamMap::from(
        {{GuestPhys(0), 4 << 20, "ram", 0}, {GuestPhys(8 << 20), 2 << 20, "ram", 4 << 20}});
    ram_ = *std::move(map);
  }
  void set(GuestPhys address, char value) {
    pages_[address.pfn()].assign(page_size, static_cast<std::byte>(value));
  }
  const RamMap& ram() const override { return ram_; }
  const std::byte* page(GuestPhys address) override {
    static const std::vector<std::byte> zeros(page_size);
    if (!ram_.contains(address)) return nullptr;
    const auto found = pages_.find(address.pfn());
    return found == pages_.end() ? zeros.data() : found->second.data();
  }
  void prefetch(std::span<const GuestPhys>) override {}
  Result<void> read_fresh(std::span<FreshRead>) override {
    return Error{.code = ErrorCode::unsupported, .message = "images are not made by fresh reads"};
  }
  Result<std::vector<PhysRange>> populated() override {
    return std::vector<PhysRange>{{GuestPhys(0), 1 << 20}, {GuestPhys(3 << 20), 6 << 20}};
  }
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override {
    if (read_phys(*this, from, into)) return {};
    return Error{.code = ErrorCode::fault, .message = "not RAM"};
  }
  Result<void> health() override { return {}; }
  MemoryCounters counters() const override { return {}; }
  bool is_live() const override { return true; }
  ViewNature nature() const override { return {}; }
  std::string_view technique() const override { return "fake"; }

 private:
  Result<void> do_refresh() override { return {}; }
  Result<void> do_end_view() override { return {}; }
  void do_forget(std::span<const GuestPhys>) override {}

  RamMap ram_;
  std::map<std::uint64_t, std::vector<std::byte>> pages_;
};

class MemoryImage : public testing::Test {
 protected:
  MemoryImage() {
    fd_ = UniqueFd(::mkstemp(path_.data()));
    memory_.set(GuestPhys(0x1000), 'a');
    memory_.set(GuestPhys(0x300000), 'b');
    memory_.set(GuestPhys(0x8ff000), 'c');
  }
  ~MemoryImage() override { ::unlink(path_.c_str()); }

  static char first_byte(GuestMemory& memory, std::uint64_t address) {
    const std::byte* page = memory.page(GuestPhys(address));
    return page == nullptr ? '!' : static_cast<char>(*page);
  }

  std::string path_ = testing::TempDir() + "vmsight-image-XXXXXX";
  UniqueFd fd_;
  FakeMemory memory_;
};

TEST_F(MemoryImage, AnElfCoreIsReadBackWithItsNotes) {
  const CoreDetails details{
      .direct_map = GuestVirt(0xffff888000000000),
      .aliases = {{GuestPhys(0x300000), 0x2000, GuestVirt(0xffffffff81000000)},
                  {GuestPhys(0x700000), 0x1000, GuestVirt(0xffffffff82000000)}},  // not RAM
      .registers = {{.index = 0, .rip = 0x1234, .cr3 = 0x5000, .cr4 = 0x20, .gs_base = 7, .cpl = 3},
                    {.index = 1, .cr3 = 0x6000}},
      .vmcoreinfo = "OSRELEASE=6.1\n",
      .page_table = GuestPhys(0x1000)};
  ASSERT_TRUE(write_elf_core(fd_.get(), memory_, details, {}));
  const auto image = open_image(path_);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ(image->format, "elf");
  EXPECT_EQ(image->ram.total_bytes(), 6u << 20);
  EXPECT_EQ(image->vmcoreinfo, "OSRELEASE=6.1\n");
  EXPECT_EQ(image->kernel_page_table, GuestPhys(0x1000));
  EXPECT_TRUE(image->problems.empty());
  ASSERT_EQ(image->registers.size(), 2u);
  EXPECT_EQ(image->registers[0].rip, 0x1234u);
  EXPECT_EQ(image->registers[0].cr3, 0x5000u);
  EXPECT_EQ(image->registers[0].gs_base, 7u);
  EXPECT_EQ(image->registers[0].cpl, 3u);
  EXPECT_EQ(image->registers[1].cr3, 0x6000u);

  const auto view = open_file_view(*image);
  ASSERT_TRUE(view);
  EXPECT_EQ(first_byte(**view, 0x0), '\0');
  EXPECT_EQ(first_byte(**view, 0x1000), 'a');
  EXPECT_EQ(first_byte(**view, 0x300000), 'b');
  EXPECT_EQ(first_byte(**view, 0x8ff000), 'c');
  EXPECT_EQ(first_byte(**view, 0x700000), '!');
}

TEST_F(MemoryImage, IsSparse) {
  ASSERT_TRUE(write_elf_core(fd_.get(), memory_, {}, {}));
  struct stat info {};
  ASSERT_EQ(::fstat(fd_.get(), &info), 0);
  EXPECT_GT(info.st_size, 6 << 20);
  EXPECT_LT(info.st_blocks * 512, 256 << 10);
}

TEST_F(MemoryImage, ARawImageHasEachByteAtItsAddress) {
  std::uint64_t done = 0, total = 0;
  ASSERT_TRUE(write_raw_image(fd_.get(), memory_, [&](std::uint64_t d, std::uint64_t t) {
    done = d;
    total = t;
  }));
  EXPECT_EQ(total, 3u << 20);  // the populated run spans the hole, which is not copied
  EXPECT_EQ(done, total);
  char byte = 0;
  ASSERT_EQ(::pread(fd_.get(), &byte, 1, 0x8ff000), 1);
  EXPECT_EQ(byte, 'c');
}

TEST_F(MemoryImage, AFullDiskIsAnError) {
  UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  const auto done = write_raw_image(full.get(), memory_, {});
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().os_errno, 0);
}

}  // namespace
}  // namespace vmsight::render_memory_image_test
