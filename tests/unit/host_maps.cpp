#include "host/host_maps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/sysmacros.h>

namespace vmsight::host_maps_test {
namespace {

constexpr std::uint64_t mebibyte = 1u << 20;

Result<std::string> no_smaps() {
  return Error{.code = ErrorCode::permission, .message = "smaps was read"};
}

std::vector<HostMapping> maps_of(std::string_view text) {
  auto maps = parse_maps(text);
  EXPECT_TRUE(maps) << maps.error().message;
  return maps ? *maps : std::vector<HostMapping>();
}

TEST(ParseMaps, ReadsEveryColumn) {
  const auto maps = maps_of(
      "7f5e3fe00000-7f5e5fe00000 rw-p 00000000 00:00 0 \n"
      "7f0000000000-7f0000001000 r-xs 00407000 fe:01 10977307                   /a b (deleted)\n");
  ASSERT_EQ(maps.size(), 2u);
  EXPECT_EQ(maps[0].start, HostVirt(0x7f5e3fe00000));
  EXPECT_EQ(maps[0].size(), 512 * mebibyte);
  EXPECT_TRUE(maps[0].writable);
  EXPECT_EQ(maps[0].path, "");
  EXPECT_TRUE(maps[1].shared && maps[1].executable && !maps[1].writable);
  EXPECT_EQ(maps[1].offset, 0x407000u);
  EXPECT_EQ(maps[1].device, makedev(0xfe, 1));
  EXPECT_EQ(maps[1].inode, 10977307u);
  EXPECT_EQ(maps[1].path, "/a b (deleted)");
}

TEST(ParseMaps, ReadsFlagsOfSmaps) {
  const auto maps = maps_of(
      "1000-2000 rw-p 0 00:00 0\nSize:      4 kB\nTHPeligible:    0\nVmFlags: rd wr mr dc ac \n"
      "2000-3000 rw-p 0 00:00 0\nVmFlags: rd wr\n");
  ASSERT_EQ(maps.size(), 2u);
  EXPECT_TRUE(maps[0].dont_fork);
  EXPECT_FALSE(maps[1].dont_fork);
}

TEST(ParseMaps, RefusesOtherText) {
  for (const char* text : {"x", "1000", "1000-", "2000-1000 rw-p 0 00:00 0", "1000-2000 rw-p",
                           "1000-2000 rw-p 0 00:00", "1000-2000 rw-p 0 00:00 x", "Size: 4 kB"}) {
    EXPECT_FALSE(parse_maps(text)) << text;
  }
}

TEST(FindRamBlocks, AnonymousBySize) {
  const auto maps = maps_of(
      "7f0000000000-7f0020000000 rw-p 0 00:00 0 \n"
      "7f1000000000-7f1020000000 rw-s 0 00:01 7 /memfd:other (deleted)\n"
      "7f2000000000-7f2020000000 rwxp 0 00:00 0 \n");
  const std::vector<MemoryBackend> backends = {{.id = "pc.ram", .size = 512 * mebibyte}};
  auto blocks = find_ram_blocks(maps, backends, no_smaps);
  ASSERT_TRUE(blocks) << blocks.error().message;
  EXPECT_EQ(blocks->at(0).host, HostVirt(0x7f0000000000));
  EXPECT_EQ(blocks->at(0).backing, Backing::anonymous);
}

TEST(FindRamBlocks, TwinsInOrderOfInodes) {
  const auto maps = maps_of(
      "7f0000000000-7f0010000000 rw-s 0 00:01 9 /memfd:memory-backend-memfd (deleted)\n"
      "7f1000000000-7f1010000000 rw-s 0 00:01 8 /memfd:memory-backend-memfd (deleted)\n");
  const MemoryBackend a{"a", BackendKind::memfd, 256 * mebibyte, true},
      b{"b", BackendKind::memfd, 256 * mebibyte, true};
  auto blocks = find_ram_blocks(maps, std::vector{a, b}, no_smaps);
  ASSERT_TRUE(blocks);
  EXPECT_EQ(blocks->at(0).inode, 8u);
  EXPECT_EQ(blocks->at(1).inode, 9u);
}

TEST(FindRamBlocks, AsksSmapsWhenSizeIsNotEnough) {
  const std::string smaps =
      "7f0000000000-7f0020000000 rw-p 0 00:00 0 \nVmFlags: rd wr\n"
      "7f1000000000-7f1020000000 rw-p 0 00:00 0 \nVmFlags: rd wr dc\n";
  const auto maps = maps_of(smaps);
  const std::vector<MemoryBackend> backends = {{.id = "pc.ram", .size = 512 * mebibyte}};
  auto blocks = find_ram_blocks(maps, backends, [&] { return Result(smaps); });
  ASSERT_TRUE(blocks);
  EXPECT_EQ(blocks->at(0).host, HostVirt(0x7f1000000000));
  EXPECT_EQ(find_ram_blocks(maps, backends, no_smaps).error().code, ErrorCode::permission);
}

TEST(FindRamBlocks, ASmallGuestMayResembleTheHeap) {
  const std::string smaps = "7f0000000000-7f0004000000 rw-p 0 00:00 0 \nVmFlags: rd wr\n";
  const std::vector<MemoryBackend> backends = {{.id = "pc.ram", .size = 64 * mebibyte}};
  auto blocks = find_ram_blocks(maps_of(smaps), backends, [&] { return Result(smaps); });
  ASSERT_FALSE(blocks);
  EXPECT_EQ(blocks.error().code, ErrorCode::not_found);
}

TEST(FindRamBlocks, JoinsASplitMapping) {
  const std::string smaps =
      "7f0000000000-7f0008000000 rw-p 0 00:00 0 \nVmFlags: rd wr dc\n"
      "7f0008000000-7f0020000000 rw-p 0 00:00 0 \nVmFlags: rd wr dc um\n";
  const std::vector<MemoryBackend> backends = {{.id = "pc.ram", .size = 512 * mebibyte}};
  auto blocks = find_ram_blocks(maps_of(smaps), backends, [&] { return Result(smaps); });
  ASSERT_TRUE(blocks) << blocks.error().message;
  EXPECT_EQ(blocks->at(0).host, HostVirt(0x7f0000000000));
}

TEST(FindRamBlocks, FilesByPathOrElseBySize) {
  const auto maps = maps_of(
      "7f0000000000-7f0010000000 rw-s 0 fe:00 9 /real/a\n"
      "7f1000000000-7f1010000000 rw-s 0 fe:00 8 /real/b\n"
      "7f2000000000-7f2020000000 rw-s 0 fe:00 7 /real/c\n");
  const MemoryBackend a{"a", BackendKind::file, 256 * mebibyte, true, "/real/a"};
  const MemoryBackend b{"b", BackendKind::file, 256 * mebibyte, true, "/real/b"};
  const MemoryBackend link{"c", BackendKind::file, 512 * mebibyte, true, "/link/c"};
  auto blocks = find_ram_blocks(maps, std::vector{a, b, link}, no_smaps);
  ASSERT_TRUE(blocks) << blocks.error().message;
  EXPECT_EQ(blocks->at(0).inode, 9u);
  EXPECT_EQ(blocks->at(1).inode, 8u);
  EXPECT_EQ(blocks->at(2).inode, 7u);
}

TEST(FindRamBlocks, NamesAnAmbiguousOne) {
  const std::string smaps =
      "7f0000000000-7f0020000000 rw-p 0 00:00 0 \nVmFlags: dc\n"
      "7f1000000000-7f1020000000 rw-p 0 00:00 0 \nVmFlags: dc\n";
  const std::vector<MemoryBackend> backends = {{.id = "pc.ram", .size = 512 * mebibyte}};
  auto blocks = find_ram_blocks(maps_of(smaps), backends, [&] { return Result(smaps); });
  ASSERT_FALSE(blocks);
  EXPECT_EQ(blocks.error().code, ErrorCode::ambiguous);
}

TEST(CompleteBlock, NeedsAMappingThatCoversIt) {
  const auto maps = maps_of("7f0000000000-7f0020000000 rw-s 0 00:01 7 /memfd:m (deleted)\n");
  RamBlock block{.name = "m", .size = 512 * mebibyte, .host = HostVirt(0x7f0000000000)};
  ASSERT_TRUE(complete_block(maps, block));
  EXPECT_EQ(block.inode, 7u);
  block.size += page_size;
  EXPECT_FALSE(complete_block(maps, block));
  block = {.name = "m", .size = ~std::uint64_t{0}, .host = HostVirt(0x7f0000000000)};
  EXPECT_FALSE(complete_block(maps, block));
}

}  // namespace
}  // namespace vmsight::host_maps_test
