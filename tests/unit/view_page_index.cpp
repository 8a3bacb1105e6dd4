#include <gtest/gtest.h>

#include "view/page_index.h"

namespace vmsight::view_page_index_test {
namespace {

constexpr std::uint64_t gib = 1ULL << 30;

TEST(PageIndex, NumbersPagesWithoutGaps) {
  const RamMap ram = *RamMap::from({{GuestPhys(0), 3 * gib}, {GuestPhys(4 * gib), 2 * gib}});
  PageIndex index = *PageIndex::from(ram);
  EXPECT_EQ(index.size(), 5 * gib / page_size);
  EXPECT_EQ(index.find(GuestPhys(0)), 0U);
  EXPECT_EQ(index.find(GuestPhys(3 * gib - 1)), 3 * gib / page_size - 1);
  EXPECT_EQ(index.find(GuestPhys(3 * gib)), std::nullopt);
  EXPECT_EQ(index.find(GuestPhys(4 * gib)), 3 * gib / page_size);
  EXPECT_EQ(index.find(GuestPhys(6 * gib)), std::nullopt);
  EXPECT_EQ(index.find(GuestPhys(~0ULL)), std::nullopt);
  for (const std::uint64_t raw :
       {0 * gib, 0 * gib + 4096, 3 * gib - 4096, 4 * gib, 6 * gib - 4096}) {
    EXPECT_EQ(index.page(*index.find(GuestPhys(raw))), GuestPhys(raw));
  }
}

TEST(PageIndex, EmptyAndTooLarge) {
  PageIndex empty = *PageIndex::from(RamMap{});
  EXPECT_EQ(empty.find(GuestPhys(0)), std::nullopt);
  const RamMap huge = *RamMap::from({{GuestPhys(0), 1ULL << 45}});
  auto index = PageIndex::from(huge);
  ASSERT_FALSE(index);
  EXPECT_EQ(index.error().code, ErrorCode::unsupported);
}

}  // namespace
}  // namespace vmsight::view_page_index_test
