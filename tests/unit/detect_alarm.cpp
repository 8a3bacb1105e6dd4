#include "detect/alarm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmsight::detect_alarm_test {
namespace {

using namespace detect;
using testing::ElementsAre;
using testing::IsEmpty;

Alarm alarm(std::uint64_t time, std::string rule = "r", std::string vm = "web") {
  return {.rule = std::move(rule),
          .tags = {},
          .vm = std::move(vm),
          .time_ns = time,
          .output = "at " + std::to_string(time),
          .fields = {},
          .evidence = nullptr};
}

/// "OUTPUT count first last" of each.
std::vector<std::string> told(const std::vector<Alarm>& alarms) {
  std::vector<std::string> all;
  for (const Alarm& one : alarms) {
    all.push_back(one.output + " " + std::to_string(one.count) + " " +
                  std::to_string(one.first_ns) + " " + std::to_string(one.last_ns));
  }
  return all;
}

TEST(AlarmLimiter, LetsTheFirstThroughAndSumsUpTheRest) {
  AlarmLimiter limiter;
  EXPECT_THAT(told(limiter.add(alarm(1000), "k", 10, 100)), ElementsAre("at 1000 1 1000 1000"));
  EXPECT_EQ(limiter.next_due_ns(), std::nullopt);
  EXPECT_THAT(limiter.add(alarm(1001), "k", 10, 101), IsEmpty());
  EXPECT_THAT(limiter.add(alarm(1005), "k", 10, 105), IsEmpty());
  EXPECT_EQ(limiter.next_due_ns(), 110u);
  EXPECT_THAT(limiter.due(109), IsEmpty());
  EXPECT_THAT(told(limiter.due(110)), ElementsAre("at 1005 2 1001 1005"));
  // The time began anew with the sum.
  EXPECT_THAT(limiter.add(alarm(1012), "k", 10, 112), IsEmpty());
  EXPECT_THAT(told(limiter.due(120)), ElementsAre("at 1012 1 1012 1012"));
  EXPECT_THAT(limiter.due(130), IsEmpty());  // nothing came: the key is forgotten
  EXPECT_EQ(limiter.keys(), 0u);
  EXPECT_THAT(told(limiter.add(alarm(1031), "k", 10, 131)), ElementsAre("at 1031 1 1031 1031"));
}

TEST(AlarmLimiter, AddDeliversWhatIsDue) {
  AlarmLimiter limiter;
  static_cast<void>(limiter.add(alarm(1), "k", 10, 1));
  static_cast<void>(limiter.add(alarm(2), "k", 10, 2));
  EXPECT_THAT(told(limiter.add(alarm(50), "other", 10, 50)),
              ElementsAre("at 2 1 2 2", "at 50 1 50 50"));
}

TEST(AlarmLimiter, KeysRulesAndMachinesAreApart) {
  AlarmLimiter limiter;
  EXPECT_THAT(limiter.add(alarm(1), "k", 10, 1), testing::SizeIs(1));
  EXPECT_THAT(limiter.add(alarm(1), "l", 10, 1), testing::SizeIs(1));
  EXPECT_THAT(limiter.add(alarm(1, "s"), "k", 10, 1), testing::SizeIs(1));
  EXPECT_THAT(limiter.add(alarm(1, "r", "db"), "k", 10, 1), testing::SizeIs(1));
  EXPECT_THAT(limiter.add(alarm(2), "k", 10, 2), IsEmpty());
  EXPECT_EQ(limiter.keys(), 4u);
}

TEST(AlarmLimiter, WithoutALimitAllComeThrough) {
  AlarmLimiter limiter;
  for (std::uint64_t i = 1; i < 5; ++i) {
    EXPECT_THAT(limiter.add(alarm(i), "k", 0, i), testing::SizeIs(1));
  }
  EXPECT_EQ(limiter.keys(), 0u);
}

TEST(AlarmLimiter, FlushDeliversAllSums) {
  AlarmLimiter limiter;
  for (const char* key : {"a", "b", "c"}) static_cast<void>(limiter.add(alarm(1), key, 10, 1));
  for (const char* key : {"c", "a", "a"}) static_cast<void>(limiter.add(alarm(2), key, 10, 2));
  EXPECT_THAT(told(limiter.flush()), ElementsAre("at 2 2 2 2", "at 2 1 2 2"));
  EXPECT_THAT(limiter.flush(), IsEmpty());
  EXPECT_EQ(limiter.next_due_ns(), std::nullopt);
  EXPECT_THAT(limiter.add(alarm(3), "a", 10, 3), testing::SizeIs(1));
}

TEST(AlarmLimiter, OfTooManyKeysTheOldestIsDeliveredEarly) {
  AlarmLimiter limiter(2);
  static_cast<void>(limiter.add(alarm(1), "a", 100, 1));
  static_cast<void>(limiter.add(alarm(2), "a", 100, 2));
  static_cast<void>(limiter.add(alarm(3), "b", 100, 3));
  EXPECT_EQ(limiter.pushed_out(), 0u);
  EXPECT_THAT(told(limiter.add(alarm(4), "c", 100, 4)), ElementsAre("at 2 1 2 2", "at 4 1 4 4"));
  EXPECT_EQ(limiter.pushed_out(), 1u);
  EXPECT_EQ(limiter.keys(), 2u);
  // Of very many none is dropped.
  std::uint64_t delivered = 0;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    for (const Alarm& one : limiter.add(alarm(i), std::to_string(i / 2 % 7), 100, 5)) {
      delivered += one.count;
    }
  }
  for (const Alarm& one : limiter.flush()) delivered += one.count;
  EXPECT_EQ(delivered, 1000u);
}

TEST(AlarmLimiter, AtATimeThatGoesBackOrHasNoEnd) {
  AlarmLimiter limiter;
  static_cast<void>(limiter.add(alarm(1), "a", ~0ULL, 1000));
  static_cast<void>(limiter.add(alarm(2), "a", ~0ULL, 10));
  EXPECT_THAT(limiter.due(~0ULL - 1), IsEmpty());
  EXPECT_EQ(limiter.next_due_ns(), ~0ULL);
  EXPECT_THAT(limiter.flush(), testing::SizeIs(1));
}

TEST(AlarmLimiter, SumsOfSums) {
  AlarmLimiter limiter;
  Alarm sum = alarm(20);
  sum.count = 5;
  sum.first_ns = 10;
  sum.last_ns = 20;
  static_cast<void>(limiter.add(alarm(1), "k", 10, 1));
  static_cast<void>(limiter.add(sum, "k", 10, 2));
  static_cast<void>(limiter.add(alarm(30), "k", 10, 3));
  EXPECT_THAT(told(limiter.flush()), ElementsAre("at 30 6 10 30"));
}

}  // namespace
}  // namespace vmsight::detect_alarm_test
