#include "state/log_tail.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmsight::state_log_tail_test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

State state_with(std::initializer_list<std::uint64_t> numbers) {
  State state;
  for (const std::uint64_t number : numbers)
    state.kernel_log.push_back({.time_ns = 1000 + number, .sequence = number, .text = {}});
  return state;
}

std::vector<std::uint64_t> take(LogTail& tail, State state) {
  tail.take(state);
  std::vector<std::uint64_t> numbers;
  for (const LogRecord& record : state.kernel_log) numbers.push_back(record.sequence);
  return numbers;
}

TEST(LogTail, TellsEachRecordOnce) {
  LogTail tail;
  EXPECT_THAT(take(tail, state_with({0, 1, 2})), ElementsAre(0, 1, 2));
  EXPECT_THAT(take(tail, state_with({0, 1, 2})), IsEmpty());
  EXPECT_THAT(take(tail, state_with({1, 2, 3, 4})), ElementsAre(3, 4));
}

TEST(LogTail, WhatIsMissingAtFirstStaysSo) {
  LogTail tail;
  State state = state_with({5, 7});
  tail.take(state);
  EXPECT_EQ(state.kernel_log.size(), 2u);
  EXPECT_THAT(state.problems, IsEmpty());
}

TEST(LogTail, WaitsForARecordThatIsBeingWritten) {
  LogTail tail;
  take(tail, state_with({0}));
  EXPECT_THAT(take(tail, state_with({0, 1, 3})), ElementsAre(1));
  EXPECT_THAT(take(tail, state_with({0, 1, 2, 3})), ElementsAre(2, 3));
}

TEST(LogTail, GivesARecordUpAndSaysSo) {
  LogTail tail;
  take(tail, state_with({0}));
  for (unsigned i = 1; i < LogTail::patience; ++i)
    EXPECT_THAT(take(tail, state_with({0, 3})), IsEmpty());
  State state = state_with({0, 3});
  tail.take(state);
  ASSERT_EQ(state.kernel_log.size(), 1u);
  EXPECT_THAT(state.problems,
              ElementsAre(Problem{"kernel_log", "2 records before number 3 were not seen"}));
  EXPECT_THAT(take(tail, state_with({3, 4})), ElementsAre(4));
}

TEST(LogTail, KnowsAnotherBootByItsTimes) {
  LogTail tail;
  const State before = state_with({0, 1, 2});
  EXPECT_FALSE(tail.is_of_another_boot(before.kernel_log));
  take(tail, state_with({0, 1, 2}));
  EXPECT_FALSE(tail.is_of_another_boot(before.kernel_log));
  State after = state_with({0, 1});
  after.kernel_log[1].time_ns += 5;
  EXPECT_TRUE(tail.is_of_another_boot(after.kernel_log));
}

TEST(LogTail, KnowsAnotherBootThatWasSeenWhileAllItsTimesWereThoseOfTheFirst) {
  LogTail tail;
  take(tail, state_with({0, 1, 2, 3}));
  const State early = state_with({0, 1});
  EXPECT_FALSE(tail.is_of_another_boot(early.kernel_log));
  EXPECT_THAT(take(tail, state_with({0, 1})), IsEmpty());
  State after = state_with({0, 1, 2});
  after.kernel_log[2].time_ns += 5;
  EXPECT_TRUE(tail.is_of_another_boot(after.kernel_log));
}

TEST(LogTail, TheLastNumberThereIsDoesNoHarm) {
  LogTail tail;
  EXPECT_THAT(take(tail, state_with({~0ull - 1, ~0ull})), ElementsAre(~0ull - 1, ~0ull));
  EXPECT_THAT(take(tail, state_with({~0ull})), ElementsAre(~0ull));
}

}  // namespace
}  // namespace vmsight::state_log_tail_test
