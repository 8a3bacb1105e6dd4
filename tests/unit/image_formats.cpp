// Every format but ELF and raw: what a writer put into a file is read from it, page by page.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "image/image_bytes.h"
#include "image/page_codecs.h"
#include "support/image_files.h"
#include "support/migration_file.h"
#include "vmsight/view.h"

namespace vmsight::image_formats_test {
namespace {

using namespace test;  // NOLINT: the writers
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class TemporaryImage {
 public:
  explicit TemporaryImage(std::string_view bytes, std::string_view ending = "")
      : path_(testing::TempDir() + "vmsight-format-XXXXXX" + std::string(ending)) {
    fd_ = UniqueFd(::mkstemps(path_.data(), static_cast<int>(ending.size())));
    EXPECT_EQ(::pwrite(fd_.get(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
  }
  ~TemporaryImage() { ::unlink(path_.c_str()); }
  TemporaryImage(const TemporaryImage&) = delete;
  TemporaryImage& operator=(const TemporaryImage&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  UniqueFd fd_;
};

/// An image, and its memory in a view.
struct Opened {
  Image image;
  std::unique_ptr<GuestMemory> memory;

  /// "absent" if it cannot be read, else what the page holds. page() and scan() must agree.
  std::string page(std::uint64_t number) {
    const std::byte* page = memory->page(GuestPhys(number * image_page));
    std::string scanned(image_page, '\0');
    const auto done =
        memory->scan(GuestPhys(number * image_page), std::as_writable_bytes(std::span(scanned)));
    EXPECT_EQ(done.has_value(), page != nullptr) << number;
    if (page == nullptr) return "absent";
    std::string text(reinterpret_cast<const char*>(page), image_page);
    EXPECT_EQ(text, scanned) << number;
    return text;
  }
  void expect_pages(std::uint64_t first, std::uint64_t count) {
    for (std::uint64_t i = first; i < first + count; ++i) ASSERT_EQ(page(i), test_page(i)) << i;
  }
};

Result<Opened> open_bytes(std::string_view bytes, const ImageOptions& options = {}) {
  const TemporaryImage file(bytes);
  Opened opened;
  VMSIGHT_TRY(opened.image, open_image(file.path(), options));
  VMSIGHT_TRY(opened.memory, open_file_view(opened.image));
  return opened;
}

#define OPEN(name, ...)                                        \
  auto name##_result = open_bytes(__VA_ARGS__);                \
  ASSERT_TRUE(name##_result) << name##_result.error().message; \
  Opened& name = *name##_result

const std::string zero_page(image_page, '\0');

TEST(Lime, RangesWithInclusiveEnds) {
  OPEN(lime, lime_range(0x1000, test_pages(1, 3)) + lime_range(0x10000, test_pages(16, 2)));
  EXPECT_EQ(lime.image.format, "lime");
  EXPECT_THAT(lime.image.problems, IsEmpty());
  EXPECT_EQ(lime.image.ram.total_bytes(), 5 * image_page);
  EXPECT_EQ(lime.page(0), "absent");
  lime.expect_pages(1, 3);
  EXPECT_EQ(lime.page(4), "absent");
  lime.expect_pages(16, 2);
}

TEST(Lime, WholePagesOnly) {  // "System RAM" may end anywhere
  OPEN(lime, lime_range(0x1000, test_pages(1, 2) + "the start of another page"));
  EXPECT_EQ(lime.image.ram.total_bytes(), 2 * image_page);
  lime.expect_pages(1, 2);
}

TEST(Lime, CutOffAndDamaged) {
  const std::string whole =
      lime_range(0, test_pages(0, 4)) + lime_range(0x10000, test_pages(16, 2));
  OPEN(cut, whole.substr(0, whole.size() - image_page - 5));
  EXPECT_THAT(cut.image.problems, ElementsAre(HasSubstr("4101 bytes of memory are missing")));
  EXPECT_EQ(cut.image.absent_bytes, 0U) << "nobody left it out";
  cut.expect_pages(0, 4);
  EXPECT_EQ(cut.page(17), "absent");
  OPEN(trailing, lime_range(0, test_pages(0, 4)) + "what is this");
  EXPECT_THAT(trailing.image.problems, ElementsAre(HasSubstr("no range begins")));
  EXPECT_FALSE(open_bytes("EMiL\2"));
}

TEST(Ranges, TheUserTellsThem) {
  const std::string joined = test_pages(1, 3) + test_pages(16, 2);
  OPEN(raw, joined, {.ranges = *parse_image_ranges("0x1000-0x4000,65536-0x12000")});
  EXPECT_EQ(raw.image.format, "ranges");
  raw.expect_pages(1, 3);
  raw.expect_pages(16, 2);
  EXPECT_EQ(raw.page(4), "absent");
  const auto other = open_bytes(joined, {.ranges = *parse_image_ranges("0x1000-0x4000")});
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::usage);
  for (const auto* text : {"", "1-2", "0x1000", "0x2000-0x1000", "0x1000-0x2000,", "x-y"}) {
    EXPECT_FALSE(parse_image_ranges(text)) << text;
  }
}

using Kind = KdumpFile::Page;

KdumpFile sample_dump(KdumpCodec codec) {
  KdumpFile dump{.pages = std::vector<Kind>(200, Kind::dumped), .codec = codec};
  dump.pages[0] = Kind::not_ram;
  for (int i = 70; i < 80; ++i) dump.pages[i] = Kind::excluded;
  for (int i = 90; i < 95; ++i) dump.pages[i] = Kind::zero;
  return dump;
}

void expect_sample(Opened& dump) {
  EXPECT_EQ(dump.image.ram.total_bytes(), 199 * image_page);
  EXPECT_EQ(dump.page(0), "absent");
  dump.expect_pages(1, 69);
  for (int i = 70; i < 80; ++i) EXPECT_EQ(dump.page(i), "absent") << i;
  dump.expect_pages(80, 10);
  for (int i = 90; i < 95; ++i) EXPECT_EQ(dump.page(i), zero_page) << i;
  dump.expect_pages(95, 105);
}

TEST(Kdump, EveryCompressionExcludedAndZeroPages) {
  for (const KdumpCodec codec : {KdumpCodec::none, KdumpCodec::zlib, KdumpCodec::lzo,
                                 KdumpCodec::snappy, KdumpCodec::zstd}) {
    SCOPED_TRACE(static_cast<int>(codec));
    OPEN(dump, sample_dump(codec).bytes());
    EXPECT_EQ(dump.image.format, "kdump");
    EXPECT_EQ(dump.image.absent_bytes, 10 * image_page);
    EXPECT_THAT(dump.image.problems, ElementsAre(HasSubstr("40960 bytes of memory")));
    expect_sample(dump);
    const auto populated = *dump.memory->populated();
    ASSERT_EQ(populated.size(), 2u);
    EXPECT_EQ(populated[0].size, 69 * image_page);
    EXPECT_EQ(populated[1].start, GuestPhys(80 * image_page));
  }
}

TEST(Kdump, ExcludedPagesAreZeroIfTheUserSaysSo) {
  OPEN(dump, sample_dump(KdumpCodec::lzo).bytes(), {.absent_is_zero = true});
  EXPECT_THAT(dump.image.problems, IsEmpty());
  EXPECT_EQ(dump.page(75), zero_page);
  EXPECT_EQ(dump.page(200), "absent") << "no RAM is there at all";
}

TEST(Kdump, NotesAndVmcoreinfo) {
  KdumpFile file = sample_dump(KdumpCodec::zlib);
  file.vmcoreinfo = "OSRELEASE=6.1\n";
  file.notes = std::string("\x0b\0\0\0\x04\0\0\0\0\0\0\0VMCOREINFO\0\0abcd", 28);
  OPEN(with_note, file.bytes());
  EXPECT_EQ(with_note.image.vmcoreinfo, "abcd") << "the note comes first";
  file.notes.clear();
  OPEN(without, file.bytes());
  EXPECT_EQ(without.image.vmcoreinfo, "OSRELEASE=6.1\n");
}

TEST(Kdump, DamageIsMissingNotZero) {
  std::string bytes = sample_dump(KdumpCodec::zlib).bytes();
  bytes[bytes.size() - 3] ^= 0x55;  // of the checksum of the last page
  OPEN(damaged, bytes);
  EXPECT_EQ(damaged.page(199), "absent");
  damaged.expect_pages(101, 20);
  KdumpFile incomplete = sample_dump(KdumpCodec::zlib);
  incomplete.status = 8;
  const std::string whole = incomplete.bytes();
  OPEN(cut, whole.substr(0, whole.size() - 200));
  EXPECT_THAT(cut.image.problems, testing::Contains(HasSubstr("incomplete")));
  EXPECT_EQ(cut.page(199), "absent");
  cut.expect_pages(1, 60);
}

TEST(Kdump, OpensAnyCut) {
  const std::string whole = sample_dump(KdumpCodec::lzo).bytes();
  for (std::size_t length = 0; length < whole.size(); length += 1021) {
    const auto dump = open_bytes(whole.substr(0, length));
    EXPECT_TRUE(!dump || !dump->image.problems.empty()) << length;
  }
}

TEST(Flattened, IsReadWhereItLies) {
  for (const std::size_t piece : {512U, 5000U, 65536U}) {
    OPEN(dump, flattened(sample_dump(KdumpCodec::zlib).bytes(), piece));
    EXPECT_EQ(dump.image.format, "kdump, flattened");
    expect_sample(dump);
  }
}

TEST(Flattened, ACutOneSaysSo) {
  const std::string whole = flattened(sample_dump(KdumpCodec::zlib).bytes(), 5000);
  OPEN(cut, whole.substr(0, whole.size() - 9000));
  EXPECT_THAT(cut.image.problems, testing::Contains(HasSubstr("flattened dump ends too early")));
  cut.expect_pages(1, 60);
}

TEST(Packed, GzipAndZstdAroundOthers) {
  const std::string lime = lime_range(0x1000, test_pages(1, 600)) +
                           lime_range(0x1000000, std::string(64 * image_page, '\0'));
  std::vector<std::string> said;
  const ImageOptions options{.said = [&](std::string_view what) { said.emplace_back(what); }};
  OPEN(gzip, gzipped(lime), options);
  EXPECT_EQ(gzip.image.format, "lime, gzip");
  gzip.expect_pages(1, 600);
  EXPECT_EQ(gzip.page(0x1000), zero_page);
  EXPECT_THAT(said, ElementsAre(HasSubstr("was unpacked into")));
  OPEN(zstd, zstd_packed(lime));
  EXPECT_EQ(zstd.image.format, "lime, zstd");
  zstd.expect_pages(1, 600);
  OPEN(members, gzipped(lime.substr(0, 1000)) + gzipped(lime.substr(1000)));
  members.expect_pages(1, 600);
  OPEN(deep, gzipped(zstd_packed(flattened(sample_dump(KdumpCodec::lzo).bytes(), 4096))));
  EXPECT_EQ(deep.image.format, "kdump, flattened, zstd, gzip");
  expect_sample(deep);
}

TEST(Packed, CutDamagedAndTooDeep) {
  const std::string lime = lime_range(0x1000, test_pages(1, 600));
  const std::string gzip = gzipped(lime), zstd = zstd_packed(lime);
  OPEN(cut, gzip.substr(0, gzip.size() / 2));
  EXPECT_THAT(cut.image.problems, testing::Contains(HasSubstr("what gzip packed ends too early")));
  cut.expect_pages(1, 100);
  EXPECT_FALSE(open_bytes(gzip.substr(0, 20)));
  std::string damaged = gzip;
  for (std::size_t i = 100; i < 120; ++i) damaged[i] ^= 0x5a;
  EXPECT_FALSE(open_bytes(damaged));
  damaged = zstd;
  for (std::size_t i = 20; i < 40; ++i) damaged[i] ^= 0x5a;
  EXPECT_FALSE(open_bytes(damaged));
  std::string deep = lime;
  for (int i = 0; i < 6; ++i) deep = gzipped(deep);
  const auto refused = open_bytes(deep);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("too often"));
  ASSERT_FALSE(open_bytes(gzipped("BZh9 and so on")));
  EXPECT_THAT(open_bytes(gzipped("BZh9 and so on")).error().message, HasSubstr("bzip2"));
}

TEST(Avml, BlocksOfSnappyFrames) {
  for (const bool packed : {true, false}) {
    OPEN(avml, avml_block(0x1000, test_pages(1, 40), packed) +
                   avml_block(0x100000, test_pages(256, 3), packed));
    EXPECT_EQ(avml.image.format, "avml");
    EXPECT_THAT(avml.image.problems, IsEmpty());
    avml.expect_pages(1, 40);
    avml.expect_pages(256, 3);
    EXPECT_EQ(avml.page(41), "absent");
  }
}

TEST(Avml, WhatIsReadWithAPageIsUnpackedWithIt) {
  OPEN(avml, avml_block(0x1000, test_pages(1, 40)));
  avml.memory->page(GuestPhys(0x1000));
  EXPECT_EQ(avml.memory->counters().calls, 16u) << "pages of one frame";
  for (int i = 1; i < 17; ++i) avml.memory->page(GuestPhys(i * image_page));
  EXPECT_EQ(avml.memory->counters().calls, 16u);
}

TEST(Avml, DamageAndCuts) {
  const std::string whole = avml_block(0x1000, test_pages(1, 40));
  std::string damaged = whole;
  damaged[32 + 10 + 4] ^= 1;  // the checksum of the first frame
  OPEN(first, damaged);
  EXPECT_EQ(first.page(3), "absent");
  first.expect_pages(17, 24);
  const std::string two = whole + avml_block(0x100000, test_pages(256, 30));
  OPEN(cut, two.substr(0, two.size() - 200));
  EXPECT_FALSE(cut.image.problems.empty());
  cut.expect_pages(1, 40);
  EXPECT_EQ(cut.page(285), "absent");
  EXPECT_FALSE(open_bytes("AVML\2\0\0\0"));
}

/// 2 MiB of pc.ram: pages 0 ... 255 as they are, zeros above, and a block of a device.
std::string migration() {
  constexpr std::uint64_t zero = 2, mem_size = 4, whole = 8, end = 0x10, same = 0x20;
  MigrationFile file;
  file.configuration().section(1, "ram");
  file.word(0x210000 | mem_size).name("pc.ram").word(0x200000).name("vga.vram").word(0x10000);
  file.word(end).footer().go_on(2);
  for (std::uint64_t i = 0; i < 512; ++i) {
    file.word(i * image_page | (i < 256 ? whole : zero) | (i == 0 ? 0 : same));
    if (i == 0) file.name("pc.ram");
    if (i < 256) file.text(test_page(i));
    if (i >= 256) file.byte(0);
  }
  file.word(end).footer().section(4, "cpu", 12).fill(0x77, 100);
  return {reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()};
}

void expect_migrated(Opened& file) {
  EXPECT_EQ(file.image.ram.end(), GuestPhys(0x200000));
  file.expect_pages(0, 160);
  EXPECT_EQ(file.page(161), "absent") << "the hole below 1 MiB";
  file.expect_pages(0xc0, 64);
  EXPECT_EQ(file.page(256), zero_page);
}

TEST(Migration, TheMainMemoryIsFound) {
  OPEN(file, migration());
  EXPECT_EQ(file.image.format, "migration");
  expect_migrated(file);
  const auto populated = *file.memory->populated();
  ASSERT_EQ(populated.size(), 2u);
  EXPECT_EQ(populated[1].size, 64 * image_page);
}

TEST(Migration, SavedDomains) {
  OPEN(plain, saved_domain("<domain/>", migration()));
  EXPECT_EQ(plain.image.format, "migration, libvirt");
  expect_migrated(plain);
  OPEN(packed, saved_domain("<domain/>", gzipped(migration())));
  EXPECT_EQ(packed.image.format, "migration, gzip, libvirt");
  expect_migrated(packed);
  const auto lzop = open_bytes(saved_domain("<domain/>", "\x89LZO and so on"));
  ASSERT_FALSE(lzop);
  EXPECT_THAT(lzop.error().message, HasSubstr("lzop"));
  EXPECT_FALSE(open_bytes(saved_domain("<domain/>", "")));
}

TEST(Migration, AnyCutIsAnError) {
  const std::string whole = migration();
  for (std::size_t length = 0; length < 256 * image_page; length += 30011) {
    EXPECT_FALSE(open_bytes(whole.substr(0, length))) << length;
  }
}

TEST(Vmware, TheStateTellsTheRegions) {
  const TemporaryImage memory(test_pages(0, 8) + test_pages(100, 4), ".vmem");
  const std::string beside = memory.path().substr(0, memory.path().size() - 5);
  const auto write = [&](const std::string& path, std::string_view bytes) {
    std::FILE* file = std::fopen(path.c_str(), "w");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
  };
  for (const auto* ending : {".vmss", ".vmsn"}) {
    write(beside + ending, vmware_state({{0, 0, 8}, {100, 8, 4}}));
    auto image = open_image(memory.path());
    ASSERT_TRUE(image) << image.error().message;
    EXPECT_EQ(image->format, "vmware");
    Opened opened{*image, *open_file_view(*image)};
    opened.expect_pages(0, 8);
    opened.expect_pages(100, 4);
    EXPECT_EQ(opened.page(9), "absent");
    write(beside + ending, vmware_state({}));
    EXPECT_EQ(open_image(memory.path())->ram.total_bytes(), 12 * image_page);
    write(beside + ending, "\xd2\xbe\xd2\xbe");
    EXPECT_FALSE(open_image(memory.path()));
    ::unlink((beside + ending).c_str());
  }
}

TEST(UnpackedView, KeepsPagesOverViewsAndUnpacksOnce) {
  OPEN(dump, sample_dump(KdumpCodec::zlib).bytes());
  std::vector<GuestPhys> pages;
  for (std::uint64_t i = 1; i < 60; ++i) pages.emplace_back(i * image_page);
  dump.memory->prefetch(pages);
  EXPECT_EQ(dump.memory->counters().calls, 59u);
  EXPECT_EQ(dump.memory->counters().pages, 0u) << "nobody looked at them";
  dump.memory->page(pages[0]);
  EXPECT_EQ(dump.memory->counters().pages, 1u);
  ASSERT_TRUE(dump.memory->refresh());
  EXPECT_EQ(dump.memory->counters().pages, 0u);
  for (const GuestPhys page : pages) dump.memory->page(page);
  EXPECT_EQ(dump.memory->counters().calls, 0u) << "an image does not change";
  EXPECT_EQ(dump.memory->counters().pages, 59u);
}

TEST(PageCodecs, RefuseWhatIsNoWholePage) {
  std::string page(image_page, '\0');
  const auto into = std::as_writable_bytes(std::span(page));
  for (const PageCodec codec :
       {PageCodec::zlib, PageCodec::lzo, PageCodec::snappy, PageCodec::zstd}) {
    EXPECT_FALSE(unpack_page(codec, {}, into));
    const std::string junk = "no compressed page is this";
    EXPECT_FALSE(unpack_page(codec, std::as_bytes(std::span(junk)), into));
  }
}

}  // namespace
}  // namespace vmsight::image_formats_test
