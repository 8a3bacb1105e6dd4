// Proofs of no change, and the map that remembers within one view.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "state/flat_map.h"
#include "state/proofs.h"
#include "support/synthetic_guest.h"

namespace vmsight::state_proofs_test {
namespace {

using test::SyntheticGuest;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ProofsTest : public ::testing::Test {
 protected:
  void note(Proofs::Owner owner, GuestVirt at) {
    proofs_.set_owner(owner);
    proofs_.expect(reader_, at, reader_.u64(at));
  }

  SyntheticGuest guest_;
  AddressSpace space_ = guest_.space();
  Reader reader_{guest_.memory(), space_};
  Proofs proofs_;
  GuestVirt a_ = guest_.allocate(4096, 4096), b_ = guest_.allocate(4096, 4096);
};

TEST_F(ProofsTest, TellsWhoseWordsChanged) {
  proofs_.begin(true);
  note(1, a_);
  note(2, a_ + 8);
  note(2, a_ + 4088);
  note(7, b_ + 16);
  note(1, a_ + 128);
  EXPECT_THAT(*proofs_.changed(guest_.memory()), IsEmpty());
  guest_.put(a_ + 4088, std::uint64_t{1});
  guest_.put(b_ + 16, std::uint64_t{1});
  guest_.put(b_ + 24, std::uint64_t{1});  // nobody relied on it
  EXPECT_THAT(*proofs_.changed(guest_.memory()), ElementsAre(2u, 7u));
}

TEST_F(ProofsTest, NothingIsNotedOfAGuestThatStandsStill) {
  proofs_.begin(false);
  note(1, a_);
  guest_.put(a_, std::uint64_t{1});
  EXPECT_EQ(proofs_.size(), 0u);
  EXPECT_THAT(*proofs_.changed(guest_.memory()), IsEmpty());
}

TEST_F(ProofsTest, TruncateForgets) {
  proofs_.begin(true);
  note(1, a_);
  const std::size_t before = proofs_.size();
  note(2, b_);
  proofs_.truncate(before);
  guest_.put(b_, std::uint64_t{1});
  EXPECT_THAT(*proofs_.changed(guest_.memory()), IsEmpty());
}

TEST_F(ProofsTest, SmallValuesAndThoseBeyondTheDirectMap) {
  const GuestVirt far(0xffffc90000000000);
  guest_.map_scattered(far, 2 * page_size);
  proofs_.begin(true);
  proofs_.expect(reader_, a_ + 4, std::int32_t{-1});  // not what is there
  proofs_.set_owner(3);
  proofs_.expect(reader_, far + page_size, std::uint64_t{0});
  EXPECT_THAT(*proofs_.changed(guest_.memory()), ElementsAre(0u));
  guest_.put(far + page_size, std::uint64_t{9});
  guest_.put(a_ + 4, std::int32_t{-1});
  EXPECT_THAT(*proofs_.changed(guest_.memory()), ElementsAre(3u));
}

TEST(FlatMap, FindsWhatWasInsertedUntilCleared) {
  FlatMap<int> map;
  EXPECT_EQ(map.find(GuestVirt(1)), nullptr);
  for (int i = 0; i < 5000; ++i) {
    map.insert(GuestVirt(0xffff888000000000 + 64 * std::uint64_t(i)), GuestVirt(i % 7), i);
  }
  EXPECT_EQ(map.size(), 5000u);
  for (int i = 0; i < 5000; ++i) {
    const int* found =
        map.find(GuestVirt(0xffff888000000000 + 64 * std::uint64_t(i)), GuestVirt(i % 7));
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(*found, i);
  }
  map.insert(GuestVirt(5), 1);
  map.insert(GuestVirt(5), 2);
  EXPECT_EQ(*map.find(GuestVirt(5)), 2);
  map.clear();
  EXPECT_EQ(map.find(GuestVirt(5)), nullptr);
  EXPECT_EQ(map.size(), 0u);
}

}  // namespace
}  // namespace vmsight::state_proofs_test
