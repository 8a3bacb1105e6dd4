#include "image/migration_stream.h"

#include <gtest/gtest.h>

#include "support/migration_file.h"

namespace vmsight::image_migration_stream_test {
namespace {

using test::MigrationFile;

constexpr std::uint64_t zero = 2, mem_size = 4, whole = 8, eos = 0x10, same = 0x20, flush = 0x200;

const std::vector<WantedBlock> wanted = {{"pc.ram", 0x4000}};

MigrationFile& blocks(MigrationFile& file) {
  return file.word(0x6000 | mem_size).name("pc.ram").word(0x4000).name("vga.vram").word(0x2000);
}

/// A stream of two rounds: page 1 is sent twice, page 2 becomes zeros.
MigrationFile stream() {
  MigrationFile file;
  file.configuration().section(1, "ram");
  blocks(file).word(eos).footer();
  file.go_on(2).word(0x0000 | whole).name("pc.ram").fill(0xa0, page_size);
  file.word(0x1000 | whole | same).fill(0xa1, page_size);
  file.word(0x2000 | whole | same).fill(0xa2, page_size);
  file.word(flush).word(0x0000 | whole).name("vga.vram").fill(0xff, page_size).word(eos).footer();
  file.go_on(3).word(0x1000 | whole).name("pc.ram").fill(0xb1, page_size);
  file.word(0x2000 | zero | same).byte(0).word(eos).footer();
  return file;
}

TEST(MigrationStream, LaterPagesOverrideEarlierOnes) {
  MigrationFile file = stream();
  file.section(4, "cpu", 12).fill(0x77, 100);
  const auto found = parse_migration_stream(file.bytes, wanted);
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_EQ(found->size(), 1u);
  const StreamBlock& block = found->front();
  ASSERT_TRUE(block.found);
  EXPECT_FALSE(block.mapped);
  ASSERT_EQ(block.pages.size(), 4u);
  EXPECT_EQ(file.bytes[block.pages[0]], std::byte{0xa0});
  EXPECT_EQ(file.bytes[block.pages[1] + page_size - 1], std::byte{0xb1});
  EXPECT_EQ(block.pages[2], 0u);
  EXPECT_EQ(block.pages[3], 0u);
}

TEST(MigrationStream, MissingAndRenamedBlocks) {
  MigrationFile file;
  file.configuration().section(1, "ram").word(0x2000 | mem_size).name("/objects/ram0").word(0x2000);
  file.word(eos).footer().byte(0);
  const std::vector<WantedBlock> two = {{"ram0", 0x2000}, {"dimm", 0x1000}};
  const auto found = parse_migration_stream(file.bytes, two);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_TRUE((*found)[0].found);
  EXPECT_FALSE((*found)[1].found);
}

TEST(MigrationStream, MappedRamLiesInPlace) {
  MigrationFile file;
  file.configuration("mapped-ram").section(1, "ram").word(0x5000 | mem_size);
  for (const auto& [name, size, at] :
       {std::tuple("pc.ram", 0x4000, 0x1000), {"rom", 0x1000, 0x6000}}) {
    file.name(name).word(static_cast<std::uint64_t>(size)).number<std::uint32_t>(1);
    file.word(page_size).word(0x8e).word(static_cast<std::uint64_t>(at));
    file.bytes.resize(static_cast<std::size_t>(at));
    file.fill(0xcc, static_cast<std::size_t>(size));
  }
  file.word(eos).footer().go_on(3).word(eos).footer().section(4, "cpu", 1);
  const auto found = parse_migration_stream(file.bytes, wanted);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_TRUE(found->front().mapped);
  EXPECT_EQ(found->front().pages_at, 0x1000u);
}

TEST(MigrationStream, RefusesWhatItWouldMisread) {
  const auto broken = [](auto change) {
    MigrationFile file;
    file.configuration().section(1, "ram");
    change(file);
    return parse_migration_stream(file.bytes, wanted).error().code;
  };
  using F = MigrationFile;
  EXPECT_EQ(broken([](F&) {}), ErrorCode::bad_data);  // no word
  EXPECT_EQ(broken([](F& f) { f.word(0x0 | whole | same).fill(1, page_size); }),
            ErrorCode::bad_data);  // no block yet
  EXPECT_EQ(broken([](F& f) { f.word(0x3000 | mem_size).name("pc.ram").word(0x4000); }),
            ErrorCode::bad_data);  // longer than the total
  EXPECT_EQ(broken([](F& f) { f.word(0x1000 | mem_size).name("pc.ram").word(0x1000); }),
            ErrorCode::bad_data);  // shorter than wanted
  EXPECT_EQ(broken([](F& f) { blocks(f).word(0x4000 | whole).name("pc.ram").fill(1, page_size); }),
            ErrorCode::bad_data);  // outside
  EXPECT_EQ(broken([](F& f) { blocks(f).word(whole).name("other").fill(1, page_size); }),
            ErrorCode::bad_data);
  EXPECT_EQ(broken([](F& f) { blocks(f).word(whole).name("pc.ram").fill(1, page_size - 1); }),
            ErrorCode::bad_data);  // ends within a page
  EXPECT_EQ(broken([](F& f) { blocks(f).word(zero).name("pc.ram").byte(7); }), ErrorCode::bad_data);
  EXPECT_EQ(broken([](F& f) { blocks(f).word(0x40).name("pc.ram"); }), ErrorCode::unsupported);
  EXPECT_EQ(broken([](F& f) { blocks(blocks(f)); }), ErrorCode::bad_data);
}

TEST(MigrationStream, EveryTruncationIsNoticedOrHarmless) {
  const MigrationFile file = stream();
  for (std::size_t size = 0; size < file.bytes.size(); size += size < 200 ? 1 : 97) {
    const std::vector<std::byte> part(file.bytes.begin(),
                                      file.bytes.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(parse_migration_stream(part, wanted)) << size;
  }
}

}  // namespace
}  // namespace vmsight::image_migration_stream_test
