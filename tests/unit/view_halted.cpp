// Views of a halted child process that has RAM as QEMU has it, and writes to it all the time.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <array>
#include <cctype>

#include "support/busy_vm.h"
#include "view/copy_snapshot.h"
#include "vmsight/view.h"

namespace vmsight::view_halted_test {
namespace {

using test::BusyVm;

struct Case {
  std::string_view technique;
  Backing backing;
};

class HaltedView : public ::testing::TestWithParam<Case> {
 protected:
  HaltedView() : vm_(GetParam().backing) {}
  void SetUp() override {
    auto memory = open_view(vm_.vm(), GetParam().technique);
    if (!memory && GetParam().technique.ends_with(":freezer"))
      GTEST_SKIP() << memory.error().message;
    ASSERT_TRUE(memory) << memory.error().message;
    memory_ = *std::move(memory);
  }
  std::uint64_t value(std::uint64_t page) {
    std::uint64_t value = 0;
    EXPECT_TRUE(read_phys(*memory_, GuestPhys(page * page_size),
                          std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  /// What each page of the RAM holds now.
  std::vector<std::uint64_t> values() {
    std::vector<std::uint64_t> all;
    for (std::uint64_t page = 0; page < BusyVm::workers * BusyVm::pages_each; ++page) {
      all.push_back(value(page));
    }
    return all;
  }

  BusyVm vm_;
  std::unique_ptr<GuestMemory> memory_;
};

TEST_P(HaltedView, IsLiveOutsideOfViewsOnly) {
  EXPECT_EQ(memory_->technique(), GetParam().technique);
  EXPECT_TRUE(memory_->is_live());
  ASSERT_TRUE(memory_->refresh());
  EXPECT_FALSE(memory_->is_live());
  ASSERT_TRUE(memory_->end_view());
  EXPECT_TRUE(memory_->is_live());
}

TEST_P(HaltedView, SaysThatItHaltsTheGuest) {
  const ViewNature nature = memory_->nature();
  EXPECT_TRUE(nature.one_moment && nature.halts);
  EXPECT_FALSE(nature.passive || nature.direct);
  EXPECT_EQ(nature.copies, !nature.is_read_halted());
}

TEST_P(HaltedView, NothingMovesInAView) {
  std::vector<std::uint64_t> before;
  for (int view = 0; view < 5; ++view) {
    ASSERT_TRUE(memory_->refresh());
    const auto first = values();
    ::usleep(5'000);
    std::vector<GuestPhys> pages;
    for (std::uint64_t page = 0; page < first.size(); ++page) {
      pages.push_back(GuestPhys(page * page_size));
    }
    memory_->forget(pages);
    EXPECT_EQ(values(), first);
    EXPECT_EQ(value(BusyVm::first_hole / page_size), 0U);
    EXPECT_GT(memory_->counters().pause_ns, 0U);
    ASSERT_TRUE(memory_->end_view());
    EXPECT_NE(first, before) << "the guest ran between the views";
    before = first;
    EXPECT_EQ(vm_.damage_after_a_second(), "");
  }
}

TEST_P(HaltedView, TheGuestRunsOnWhenTheViewIsDropped) {
  ASSERT_TRUE(memory_->refresh());
  memory_.reset();
  EXPECT_EQ(vm_.damage_after_a_second(), "");
}

INSTANTIATE_TEST_SUITE_P(Techniques, HaltedView,
                         ::testing::Values(Case{"halt-map:ptrace", Backing::shared_file},
                                           Case{"halt-read:ptrace", Backing::anonymous},
                                           Case{"halt-read:ptrace", Backing::shared_file},
                                           Case{"halt-map:freezer", Backing::shared_file},
                                           Case{"halt-read:freezer", Backing::anonymous},
                                           Case{"halt-snap:copy", Backing::anonymous},
                                           Case{"halt-snap:copy", Backing::shared_file}),
                         [](const ::testing::TestParamInfo<Case>& tested) {
                           std::string text = fmt::format("{}_{}", tested.param.technique,
                                                          to_string(tested.param.backing));
                           for (char& c : text)
                             c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
                           return text;
                         });

/// What a balloon takes from the guest must not show up in later snapshots.
TEST(CopySnapshot, ForgetsWhatTheGuestGaveBack) {
  test::ChildVm vm(Backing::shared_file, {{GuestPhys(0), 1 << 20}});
  vm.put(GuestPhys(0x1000), std::uint64_t{7});
  vm.put(GuestPhys(0x5000), std::uint64_t{8});
  auto opened = open_copy_snapshot(vm, default_max_halt);
  ASSERT_TRUE(opened) << opened.error().message;
  GuestMemory& memory = **opened;
  ASSERT_TRUE(memory.refresh());
  std::uint64_t value = 0;
  ASSERT_TRUE(read_phys(memory, GuestPhys(0x5000), std::as_writable_bytes(std::span(&value, 1))));
  EXPECT_EQ(value, 8U);
  ASSERT_TRUE(memory.end_view());
  ASSERT_EQ(::fallocate(vm.file(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0x5000, page_size),
            0);
  ASSERT_TRUE(memory.refresh());
  ASSERT_TRUE(read_phys(memory, GuestPhys(0x5000), std::as_writable_bytes(std::span(&value, 1))));
  EXPECT_EQ(value, 0U);
  ASSERT_TRUE(read_phys(memory, GuestPhys(0x1000), std::as_writable_bytes(std::span(&value, 1))));
  EXPECT_EQ(value, 7U);
}

}  // namespace
}  // namespace vmsight::view_halted_test
