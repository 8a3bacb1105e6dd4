// Maple trees by hand: shapes that the kernel builds, and shapes that it never would.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "state/maple_tree.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::state_maple_tree_test {
namespace {

using test::MadeUpKernel;
using test::SyntheticGuest;
using ::testing::ElementsAre;

constexpr std::uint64_t leaf = 1, range = 2, arange = 3;
constexpr std::uint64_t everything = ~std::uint64_t{0};

struct Slot {
  std::uint64_t pivot = 0, value = 0;
};

class MapleTreeTest : public ::testing::Test {
 protected:
  MapleTreeTest() {
    // As in 6.1-7.2: 15 pivots and 16 slots, or 9 and 10 with room for gaps.
    kernel_.set("maple_range_64", "pivot", {8, 120, 0, 0, 15});
    kernel_.set("maple_range_64", "slot", {128, 128, 0, 0, 16});
    kernel_.set("maple_arange_64", "pivot", {8, 72, 0, 0, 9});
    kernel_.set("maple_arange_64", "slot", {80, 80, 0, 0, 10});
    tree_ = guest_.allocate(64);
    maple_ = MapleTree::resolve(kernel_).value();
  }

  /// A node with these pivots and slots; returns its tagged pointer.
  std::uint64_t node(std::uint64_t type, const std::vector<Slot>& slots) {
    const GuestVirt at = guest_.allocate(256, 256);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (slots[i].pivot != 0) guest_.put(at + 8 + 8 * i, slots[i].pivot);
      guest_.put(at + (type == arange ? 80 : 128) + 8 * i, slots[i].value);
    }
    return at.raw() | type << 3 | 4;
  }
  void set_root(std::uint64_t tagged) { kernel_.put(tree_, "maple_tree", "ma_root", tagged | 2); }

  std::vector<std::string> walk() {
    std::vector<std::string> found;
    Reader reader(guest_.memory(), kernel_.space());
    maple_->walk(reader, tree_, [&](const MapleTree::Entry& entry) {
      found.push_back(fmt::format("{:x}-{:x}:{:x}", entry.first, entry.last, entry.pointer.raw()));
      return true;
    });
    ok_ = reader.ok();
    return found;
  }

  SyntheticGuest guest_;
  MadeUpKernel kernel_{guest_};
  GuestVirt tree_;
  std::optional<MapleTree> maple_;
  bool ok_ = false;
};

TEST_F(MapleTreeTest, EmptyAndSingleEntry) {
  EXPECT_THAT(walk(), ElementsAre());
  kernel_.put(tree_, "maple_tree", "ma_root", std::uint64_t{0x1000});
  EXPECT_THAT(walk(), ElementsAre("0-0:1000"));
  EXPECT_TRUE(ok_);
}

TEST_F(MapleTreeTest, LeafWithGapsEndsAtTheLastPivot) {
  set_root(node(leaf, {{0xfff, 0}, {0x1fff, 0xa0}, {0x2fff, 0}, {0x4fff, 0xb0}, {0, 0}}));
  EXPECT_THAT(walk(), ElementsAre("1000-1fff:a0", "3000-4fff:b0"));
  EXPECT_TRUE(ok_);
}

TEST_F(MapleTreeTest, ThreeLevelsHandTheirMaximumDown) {
  const auto low = node(leaf, {{0xff, 0xa0}, {0x1ff, 0xb0}});  // ends with its parent's pivot
  const auto high = node(leaf, {{0x2ff, 0xc0}, {0, 0xd0}});    // pivot 0: to the end
  const auto middle = node(range, {{0x1ff, low}, {0, high}});
  set_root(node(arange, {{0x3ff, middle}, {0, 0}}));
  EXPECT_THAT(walk(), ElementsAre("0-ff:a0", "100-1ff:b0", "200-2ff:c0", "300-3ff:d0"));
  EXPECT_TRUE(ok_);
}

TEST_F(MapleTreeTest, FullNodeUsesItsLastSlotWithoutPivot) {
  std::vector<Slot> slots;
  for (std::uint64_t i = 0; i < 16; ++i)
    slots.push_back({i < 15 ? 0x10 * (i + 1) - 1 : 0, 0x100 + i});
  slots[15].pivot = 0;
  set_root(node(leaf, slots));
  const auto found = walk();
  ASSERT_EQ(found.size(), 16u);
  EXPECT_EQ(found.back(), fmt::format("f0-{:x}:10f", everything));
}

TEST_F(MapleTreeTest, VisitorEndsTheWalk) {
  set_root(node(leaf, {{0xff, 0xa0}, {0x1ff, 0xb0}, {0x2ff, 0xc0}}));
  Reader reader(guest_.memory(), kernel_.space());
  int visits = 0;
  maple_->walk(reader, tree_, [&](const MapleTree::Entry&) { return ++visits < 2; });
  EXPECT_EQ(visits, 2);
  EXPECT_TRUE(reader.ok());
}

TEST_F(MapleTreeTest, ForgedTreesFault) {
  set_root(node(leaf, {{0x1fff, 0xa0}, {0xfff, 0xb0}}));  // pivots go back
  walk();
  EXPECT_FALSE(ok_);
  set_root(node(9, {{0x1fff, 0xa0}}));  // no such type
  walk();
  EXPECT_FALSE(ok_);
  set_root(0xdead0000 | range << 3);  // no such memory
  walk();
  EXPECT_FALSE(ok_);
}

TEST_F(MapleTreeTest, CycleEnds) {
  const auto loop = node(range, {{0xfff, 0}, {0x1fff, 0}});
  const GuestVirt at(loop & ~std::uint64_t{0xff});
  guest_.put(at + 128, loop);
  guest_.put(at + 136, loop);
  set_root(loop);
  walk();
  EXPECT_FALSE(ok_);
}

}  // namespace
}  // namespace vmsight::state_maple_tree_test
