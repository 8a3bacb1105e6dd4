#include <gtest/gtest.h>

#include "state/lists.h"
#include "support/synthetic_guest.h"

namespace vmsight::state_lists_test {
namespace {

using test::SyntheticGuest;

class Lists : public ::testing::Test {
 protected:
  SyntheticGuest guest_;
  AddressSpace space_ = guest_.space();
  Reader reader_{guest_.memory(), space_};
  std::vector<GuestVirt> seen_;

  std::vector<GuestVirt> make_nodes(std::size_t count) {
    std::vector<GuestVirt> nodes;
    for (std::size_t i = 0; i < count; ++i) nodes.push_back(guest_.allocate(16));
    return nodes;
  }
  /// node -> node -> end
  void chain(const std::vector<GuestVirt>& nodes, std::uint64_t end) {
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      guest_.put(nodes[i], i + 1 < nodes.size() ? nodes[i + 1].raw() : end);
    }
  }
  auto collect() {
    return [this](GuestVirt node) { seen_.push_back(node); };
  }
};

TEST_F(Lists, VisitsEachNodeOfAList) {
  const GuestVirt head = guest_.allocate(16);
  const std::vector<GuestVirt> nodes = make_nodes(5);
  guest_.link_list(head, nodes);
  EXPECT_TRUE(walk_list(reader_, head, collect()));
  EXPECT_EQ(seen_, nodes);
}

TEST_F(Lists, EmptyList) {
  const GuestVirt head = guest_.allocate(16);
  guest_.link_list(head, {});
  EXPECT_TRUE(walk_list(reader_, head, collect()));
  EXPECT_TRUE(seen_.empty());
}

TEST_F(Lists, ListThatNeverComesBackEnds) {
  const GuestVirt head = guest_.allocate(16);
  const std::vector<GuestVirt> nodes = make_nodes(100);
  guest_.link_list(head, nodes);
  guest_.put_pointer(nodes[99], nodes[30]);  // a circle of 70, without the head
  EXPECT_FALSE(walk_list(reader_, head, collect()));
  EXPECT_FALSE(reader_.ok());
  EXPECT_LT(seen_.size(), 400U);
}

TEST_F(Lists, ListThatLeavesMemoryFaults) {
  const GuestVirt head = guest_.allocate(16);
  const std::vector<GuestVirt> nodes = make_nodes(3);
  guest_.link_list(head, nodes);
  guest_.put_pointer(nodes[1], GuestVirt(0x1000));
  EXPECT_FALSE(walk_list(reader_, head, collect()));
  EXPECT_EQ(reader_.fault(), GuestVirt(0x1000));
}

TEST_F(Lists, ChainTellsItsEnd) {
  const std::vector<GuestVirt> nodes = make_nodes(3);
  chain(nodes, 0);
  EXPECT_EQ(walk_chain(reader_, nodes[0].raw(), collect()), 0U);
  EXPECT_EQ(seen_, nodes);
  chain(nodes, 77 << 1 | 1);
  EXPECT_EQ(walk_chain(reader_, nodes[0].raw(), [](GuestVirt) {}), 77U << 1 | 1);
}

TEST_F(Lists, ChainThatPointsToItselfEnds) {
  const std::vector<GuestVirt> nodes = make_nodes(1);
  chain(nodes, nodes[0].raw());
  EXPECT_EQ(walk_chain(reader_, nodes[0].raw(), collect()), std::nullopt);
  EXPECT_LE(seen_.size(), 3U);
}

class Buckets : public Lists, public ::testing::WithParamInterface<std::uint32_t> {};

TEST_P(Buckets, FindsChainsWhereverTheyLieInTheTable) {
  const std::uint32_t stride = GetParam();
  constexpr std::uint64_t count = 3000;  // several pages
  const GuestVirt start = guest_.allocate(count * stride + 8, 4096);
  const std::vector<GuestVirt> nodes = make_nodes(4);
  const BucketArray table{start, count, stride, 8};
  const std::vector<std::uint64_t> used{0, 1, 511, 2999};
  for (std::uint64_t bucket = 0; bucket < count; ++bucket) {
    guest_.put(start + bucket * stride + 8, bucket << 1 | 1);
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    guest_.put_pointer(start + used[i] * stride + 8, nodes[i]);
  }
  std::vector<std::uint64_t> found;
  EXPECT_TRUE(each_chain(reader_, table, [&](std::uint64_t bucket, std::uint64_t link) {
    EXPECT_EQ(link, first_link(reader_, table, bucket));
    found.push_back(bucket);
  }));
  EXPECT_EQ(found, used);
}
INSTANTIATE_TEST_SUITE_P(Strides, Buckets, ::testing::Values(16, 24, 64));

TEST_F(Lists, TableThatCannotBeOneIsRefused) {
  const GuestVirt start = guest_.allocate(4096, 4096);
  const auto fail = [](std::uint64_t, std::uint64_t) { FAIL(); };
  EXPECT_FALSE(each_chain(reader_, {start, 10, 0, 0}, fail));
  EXPECT_FALSE(each_chain(reader_, {start, 10, 12, 0}, fail));
  EXPECT_FALSE(each_chain(reader_, {start + 4, 10, 8, 0}, fail));
}

TEST_F(Lists, MissingPageOfATableIsAFault) {
  const GuestVirt va(0xffffc90000000000);
  guest_.map_scattered(va, 8192);
  guest_.unmap(va + 4096);
  reader_.clear_fault();
  EXPECT_FALSE(each_chain(reader_, {va, 1024, 8, 0}, [](std::uint64_t, std::uint64_t) {}));
  EXPECT_EQ(reader_.fault(), va + 4096);
}

}  // namespace
}  // namespace vmsight::state_lists_test
