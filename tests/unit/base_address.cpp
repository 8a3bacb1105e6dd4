#include <gtest/gtest.h>

#include <type_traits>

#include "vmsight/address.h"

namespace vmsight::base_address_test {
namespace {

static_assert(!std::is_convertible_v<std::uint64_t, GuestPhys>, "addresses are made explicitly");
static_assert(!std::is_convertible_v<GuestVirt, GuestPhys>);
static_assert(!std::is_constructible_v<HostVirt, GuestPhys>);

TEST(Address, Arithmetic) {
  const GuestPhys start(0x1234);
  EXPECT_EQ((start + 0x10).raw(), 0x1244U);
  EXPECT_EQ((start - 0x34).raw(), 0x1200U);
  EXPECT_EQ(start + 0x10 - start, 0x10U);
  EXPECT_LT(start, start + 1);
}

TEST(Address, Pages) {
  const GuestVirt address(0xffff888000001fff);
  EXPECT_EQ(address.page(), GuestVirt(0xffff888000001000));
  EXPECT_EQ(address.page_offset(), 0xfffU);
  EXPECT_EQ(address.pfn(), 0xffff888000001ULL);
}

TEST(Address, AdditionWrapsUnlessChecked) {
  const GuestVirt top(~0ULL);
  EXPECT_EQ((top + 1).raw(), 0U);
  EXPECT_FALSE(top.checked_add(1));
  EXPECT_EQ(*top.checked_add(0), top);
}

TEST(Address, PrintsItsSpace) {
  EXPECT_EQ(fmt::format("{} {} {}", GuestVirt(0x10), GuestPhys(0x20), HostVirt(0x30)),
            "gva:0x10 gpa:0x20 hva:0x30");
}

}  // namespace
}  // namespace vmsight::base_address_test
