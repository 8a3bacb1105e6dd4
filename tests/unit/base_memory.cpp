#include <gtest/gtest.h>

#include <array>

#include "support/byte_memory.h"
#include "vmsight/memory.h"

namespace vmsight::base_memory_test {
namespace {

using test::ByteMemory;

constexpr std::uint64_t gib = 1ULL << 30;

RamRange range(std::uint64_t start, std::uint64_t size) {
  return {.start = GuestPhys(start), .size = size};
}

TEST(RamMap, SortsAndFinds) {
  const RamMap map = *RamMap::from({range(4 * gib, 2 * gib), range(0, 3 * gib)});
  ASSERT_EQ(map.ranges().size(), 2U);
  EXPECT_EQ(map.ranges()[0].start, GuestPhys(0));
  EXPECT_EQ(map.total_bytes(), 5 * gib);
  EXPECT_EQ(map.end(), GuestPhys(6 * gib));
  EXPECT_EQ(map.find(GuestPhys(0)), &map.ranges()[0]);
  EXPECT_EQ(map.find(GuestPhys(3 * gib - 1)), &map.ranges()[0]);
  EXPECT_EQ(map.find(GuestPhys(3 * gib)), nullptr) << "the PCI hole";
  EXPECT_EQ(map.find(GuestPhys(4 * gib)), &map.ranges()[1]);
  EXPECT_EQ(map.find(GuestPhys(6 * gib)), nullptr);
  EXPECT_EQ(map.find(GuestPhys(~0ULL)), nullptr);
}

TEST(RamMap, RejectsNonsense) {
  EXPECT_FALSE(RamMap::from({range(0, 0)}));
  EXPECT_FALSE(RamMap::from({range(0, 100)}));
  EXPECT_FALSE(RamMap::from({range(100, 4096)}));
  EXPECT_FALSE(RamMap::from({range(0, 8192), range(4096, 4096)}));
  EXPECT_FALSE(RamMap::from({range(~0ULL << 12, 8192)})) << "wraps";
  EXPECT_TRUE(RamMap::from({range(0, 4096), range(4096, 4096)})) << "neighbours do not overlap";
}

TEST(RamMap, EmptyHoldsNothing) {
  const RamMap map;
  EXPECT_EQ(map.find(GuestPhys(0)), nullptr);
  EXPECT_EQ(map.end(), GuestPhys(0));
  EXPECT_EQ(map.total_bytes(), 0U);
}

TEST(ReadPhys, CrossesPagesAndStopsAtTheFirstBadOne) {
  ByteMemory memory({{GuestPhys(0), 8192}});
  memory.put(GuestPhys(4092), std::uint64_t{0x1122334455667788});
  std::uint64_t value = 0;
  EXPECT_TRUE(read_phys(memory, GuestPhys(4092), std::as_writable_bytes(std::span(&value, 1))));
  EXPECT_EQ(value, 0x1122334455667788U);

  memory.put(GuestPhys(8188), std::uint32_t{0x01020304});
  std::array<std::uint32_t, 2> both{0, 0xffffffff};
  EXPECT_FALSE(read_phys(memory, GuestPhys(8188), std::as_writable_bytes(std::span(both))));
  EXPECT_EQ(both[0], 0x01020304U) << "what came before the bad page is there";
  EXPECT_EQ(both[1], 0xffffffffU);
}

TEST(CopyPhys, TellsHowMuchCameBeforeTheFirstBadPage) {
  ByteMemory memory({{GuestPhys(0), 8192}});
  std::vector<std::byte> bytes(8192);
  EXPECT_EQ(copy_phys(memory, GuestPhys(0), bytes), 8192U);
  EXPECT_EQ(copy_phys(memory, GuestPhys(4000), bytes), 4192U);
  EXPECT_EQ(copy_phys(memory, GuestPhys(8192), bytes), 0U);
  EXPECT_EQ(copy_phys(memory, GuestPhys(~0ULL - 7), bytes), 0U);
  EXPECT_EQ(copy_phys(memory, GuestPhys(8192), {}), 0U);
}

}  // namespace
}  // namespace vmsight::base_memory_test
