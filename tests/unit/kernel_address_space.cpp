#include <gtest/gtest.h>

#include "support/faulty_memory.h"
#include "support/synthetic_guest.h"

namespace vmsight::kernel_address_space_test {
namespace {

using test::MapSize;
using test::SyntheticGuest;
using test::SyntheticOptions;

class AddressSpaceTest : public testing::TestWithParam<bool> {
 protected:
  SyntheticGuest guest{SyntheticOptions{.five_level = GetParam()}};
  GuestVirt somewhere{0xffffc90000000000};
};
INSTANTIATE_TEST_SUITE_P(Levels, AddressSpaceTest, testing::Bool(), [](const auto& shape) {
  return std::string(shape.param ? "five" : "four");
});

TEST_P(AddressSpaceTest, WindowsAgreeWithThePageTables) {
  const AddressSpace windows = guest.space();
  const AddressSpace walked = guest.walked_space();
  for (const GuestVirt va : {guest.direct(GuestPhys(0x123456)), guest.image(0x345678)}) {
    EXPECT_EQ(windows.translate(guest.memory(), va), walked.translate(guest.memory(), va));
    EXPECT_TRUE(walked.translate(guest.memory(), va).has_value());
  }
}

TEST_P(AddressSpaceTest, WalksPagesOfAllSizes) {
  const AddressSpace space = guest.walked_space();
  const GuestVirt large = somewhere + (1ULL << 30), huge = somewhere + (1ULL << 39);
  guest.map(somewhere, GuestPhys(0x7000));
  guest.map(large, GuestPhys(4U << 20), MapSize::page_2m);
  guest.map(huge, GuestPhys(0), MapSize::page_1g);
  const auto small_walk = space.walk(guest.memory(), somewhere + 0x123);
  ASSERT_TRUE(small_walk);
  EXPECT_EQ(small_walk->address, GuestPhys(0x7123));
  EXPECT_EQ(small_walk->mapping_size, 4096U);
  const auto large_walk = space.walk(guest.memory(), large + 0x12345);
  ASSERT_TRUE(large_walk);
  EXPECT_EQ(large_walk->address, GuestPhys((4U << 20) + 0x12345));
  EXPECT_EQ(large_walk->mapping_size, 2U << 20);
  const auto huge_walk = space.walk(guest.memory(), huge + 0x1234567);
  ASSERT_TRUE(huge_walk);
  EXPECT_EQ(huge_walk->address, GuestPhys(0x1234567));
  EXPECT_EQ(huge_walk->mapping_size, 1U << 30);
}

TEST_P(AddressSpaceTest, PermissionsAreThoseOfTheLastLevel) {
  const GuestPhys root = guest.new_address_space();
  const GuestVirt va(0x400000);
  guest.map_in(root, va, GuestPhys(0x5000), MapSize::page_4k,
               test::pte::present | test::pte::user | test::pte::no_execute);
  const AddressSpace space(x86_64, root, GetParam() ? 5 : 4);
  const auto walk = space.walk(guest.memory(), va);
  ASSERT_TRUE(walk);
  EXPECT_TRUE(walk->user);
  EXPECT_FALSE(walk->writable);
  EXPECT_FALSE(walk->executable);
}

TEST_P(AddressSpaceTest, WhatIsNotMappedHasNoAddress) {
  const AddressSpace space = guest.space();
  EXPECT_FALSE(space.translate(guest.memory(), somewhere));
  EXPECT_FALSE(space.translate(guest.memory(), GuestVirt(0)));
  EXPECT_FALSE(space.translate(guest.memory(), GuestVirt(0x0100000000000000)));  // not canonical
  guest.map(somewhere, GuestPhys(0x7000));
  guest.unmap(somewhere);
  EXPECT_FALSE(space.translate(guest.memory(), somewhere));
}

TEST_P(AddressSpaceTest, CanonicalAddressesDependOnTheLevels) {
  const GuestVirt va(0x0010000000000000);  // bit 52: user half of five levels
  const GuestPhys root = guest.new_address_space();
  if (GetParam()) {
    guest.map_in(root, va, GuestPhys(0x5000));
    EXPECT_TRUE(AddressSpace(x86_64, root, 5).walk(guest.memory(), va));
  }
  EXPECT_FALSE(AddressSpace(x86_64, root, 4).walk(guest.memory(), va));
}

TEST_P(AddressSpaceTest, TablesOutsideRamOrInCyclesEndTheWalk) {
  guest.map(somewhere, GuestPhys(0x7000));
  const auto entry = guest.entry_of(guest.root(), somewhere);
  const AddressSpace space = guest.walked_space();
  const GuestPhys top = guest.root() + 8 * (somewhere.raw() >> (GetParam() ? 48 : 39) & 511);
  guest.memory().put(top, std::uint64_t{0x000ffffffffff007});
  EXPECT_FALSE(space.walk(guest.memory(), somewhere));
  guest.memory().put(top, guest.root().raw() | 7);  // the root is its own child
  static_cast<void>(space.walk(guest.memory(), somewhere));
  guest.memory().put(top, std::uint64_t{0x87});  // a 256 TiB page
  EXPECT_FALSE(space.walk(guest.memory(), somewhere));
  static_cast<void>(entry);
}

}  // namespace
}  // namespace vmsight::kernel_address_space_test
