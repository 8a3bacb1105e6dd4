#include "kernel/scan.h"

#include <gtest/gtest.h>

#include "support/byte_memory.h"
#include "support/synthetic_kallsyms.h"

namespace vmsight::kernel_scan_test {
namespace {

using test::ByteMemory;
constexpr std::uint64_t mib = 1U << 20;

void put_text(ByteMemory& memory, GuestPhys at, std::string_view text) {
  memory.write(at, std::as_bytes(std::span(text)));
}

TEST(BannerTest, IsALineThatBeginsWithAVersion) {
  const auto banner = [](std::string_view text) {
    return banner_in(std::as_bytes(std::span(text)));
  };
  EXPECT_EQ(banner("..\0Linux version 6.1.0 (gcc) #1\n\0more"),
            std::nullopt);  // not text before NUL
  EXPECT_EQ(banner("abc Linux version 6.1.0 (gcc) #1\nmore"), "Linux version 6.1.0 (gcc) #1");
  EXPECT_EQ(banner("Linux version 6.1"), "Linux version 6.1");
  EXPECT_EQ(banner("Linux version %s (%s)\n"), std::nullopt);
  EXPECT_EQ(banner("Linux version "), std::nullopt);
  EXPECT_EQ(banner("Linux version 6\033[2J\n"), std::nullopt);
  EXPECT_EQ(banner(""), std::nullopt);
}

TEST(ScanTest, FindsBannersAtTheBoundariesOfAllRanges) {
  ByteMemory memory({{GuestPhys(0), 16 * mib}, {GuestPhys(4096 * mib), 8 * mib}});
  put_text(memory, GuestPhys(2 * mib + 0x200), "Linux version 5.10.0\n");
  put_text(memory, GuestPhys(4 * mib + 0x1000), "Linux version 1.0\n");  // not in the first page
  put_text(memory, GuestPhys(5 * mib), "Linux version 2.0\n");           // not at a boundary
  put_text(memory, GuestPhys(4102 * mib + 0xe0), "Linux version 7.2.12\n");
  const auto hits = scan_banners(memory);
  ASSERT_TRUE(hits);
  ASSERT_EQ(hits->size(), 2U);
  EXPECT_EQ((*hits)[0].rodata, GuestPhys(2 * mib));
  EXPECT_EQ((*hits)[0].banner, "Linux version 5.10.0");
  EXPECT_EQ((*hits)[1].rodata, GuestPhys(4102 * mib));
}

TEST(ScanTest, ForgedBannersAreBounded) {
  ByteMemory memory({{GuestPhys(0), 1024 * mib}});
  for (std::uint64_t at = 0; at < 1024 * mib; at += 2 * mib)
    put_text(memory, GuestPhys(at), "Linux version 6.6.6\n");
  const auto hits = scan_banners(memory);
  ASSERT_TRUE(hits);
  EXPECT_EQ(hits->size(), max_banner_hits);
}

TEST(ScanTest, FindsTokenTablesAnywhereOnce) {
  ByteMemory memory({{GuestPhys(0), 32 * mib}});
  const auto built = test::build_kallsyms({.symbols = {{"_text", 'T', 0}, {"_end", 'B', 4096}}});
  const GuestPhys inside(9 * mib), across(16 * mib - built.layout.token_table - 100);
  memory.write(inside, built.bytes);
  memory.write(across, built.bytes);
  put_text(memory, GuestPhys(20 * mib + 5), "Linux version 3.2 compressed\n");
  std::string progress;
  const auto scan = scan_token_tables(memory, [&](std::string_view text) { progress = text; });
  ASSERT_TRUE(scan);
  EXPECT_EQ(scan->tables,
            (std::vector{inside + built.layout.token_table, across + built.layout.token_table}));
  EXPECT_EQ(scan->banners, std::vector<std::string>{"Linux version 3.2 compressed"});
  EXPECT_NE(progress.find("32 MiB"), progress.npos);
}

TEST(ScanTest, ContiguousRamCrossesRangesThatTouch) {
  const auto ram = RamMap::from({{.start = GuestPhys(0), .size = 4 * mib},
                                 {.start = GuestPhys(4 * mib), .size = 4 * mib},
                                 {.start = GuestPhys(16 * mib), .size = 4 * mib}});
  ASSERT_TRUE(ram);
  EXPECT_EQ(contiguous_ram(*ram, GuestPhys(mib), 100 * mib), 7 * mib);
  EXPECT_EQ(contiguous_ram(*ram, GuestPhys(mib), mib), mib);
  EXPECT_EQ(contiguous_ram(*ram, GuestPhys(9 * mib), mib), 0U);
}

}  // namespace
}  // namespace vmsight::kernel_scan_test
