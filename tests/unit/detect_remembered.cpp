#include "detect/remembered.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "detect/condition.h"

namespace vmsight::detect_remembered_test {
namespace {

using namespace detect;
using Kind = FieldType::Kind;
using testing::HasSubstr;

constexpr std::uint64_t second = 1'000'000'000;

const FieldTable& names() {
  static const FieldTable table(
      {{"name", {Kind::text}}, {"pid", {Kind::signed_number, 32}}, {"cpu", {Kind::number}}});
  return table;
}

FieldValues event(std::string name, std::int64_t pid, std::uint64_t cpu = 0) {
  return FieldValues({{"name", std::move(name)}, {"pid", pid}, {"cpu", cpu}});
}

Condition compiled(std::string_view text) {
  auto made = Condition::compile(text, {.names = &names()});
  EXPECT_TRUE(made) << text << ": " << made.error().message;
  return made ? *made : Condition();
}

std::string why(std::string_view text) {
  const auto made = Condition::compile(text, {.names = &names()});
  EXPECT_FALSE(made) << text;
  return made ? "" : made.error().message;
}

TEST(Memory, CountsWithinTheWindow) {
  Memory memory;
  const Memory::Window window{.length_ns = 10, .most = 5};
  EXPECT_EQ(memory.count(window, "a", 100), 1u);
  EXPECT_EQ(memory.count(window, "a", 105), 2u);
  EXPECT_EQ(memory.count(window, "b", 105), 1u);
  EXPECT_EQ(memory.count(window, "a", 110), 3u);
  EXPECT_EQ(memory.count(window, "a", 111), 3u);  // the first is too old
  EXPECT_EQ(memory.count(window, "a", 300), 1u);
  EXPECT_EQ(memory.keys(), 2u);
  EXPECT_EQ(memory.forgotten(), 0u);
}

TEST(Memory, CountsNoFurtherThanItMust) {
  Memory memory;
  for (std::uint64_t i = 1; i < 100; ++i) {
    EXPECT_EQ(memory.count({.length_ns = 1000, .most = 3}, "a", i), std::min<std::uint64_t>(i, 3));
  }
}

TEST(Memory, KeepsCountsApart) {
  Memory memory;
  EXPECT_EQ(memory.count({.which = 0, .length_ns = 9, .most = 9}, "a", 1), 1u);
  EXPECT_EQ(memory.count({.which = 1, .length_ns = 9, .most = 9}, "a", 1), 1u);
  const std::string long_key(5000, 'x');
  EXPECT_EQ(memory.count({.length_ns = 9, .most = 9}, long_key + "1", 1), 1u);
  EXPECT_EQ(memory.count({.length_ns = 9, .most = 9}, long_key + "2", 1), 1u);
  EXPECT_EQ(memory.count({.length_ns = 9, .most = 9}, long_key + "1", 2), 2u);
}

TEST(Memory, IsBoundedAndForgetsTheKeySeenLongestAgo) {
  Memory memory({.keys = 3, .times = 100});
  const Memory::Window window{.length_ns = 50, .most = 9};
  for (const char* key : {"a", "b", "c"}) memory.count(window, key, 10);
  EXPECT_EQ(memory.count(window, "a", 11), 2u);
  EXPECT_EQ(memory.count(window, "d", 12), 1u);  // instead of b
  EXPECT_EQ(memory.keys(), 3u);
  EXPECT_EQ(memory.forgotten(), 1u);
  EXPECT_EQ(memory.count(window, "a", 13), 3u);
  EXPECT_EQ(memory.count(window, "b", 14), 1u);
  EXPECT_EQ(memory.forgotten(), 2u);
  memory.count(window, "e", 1000);  // what makes room is long past
  EXPECT_EQ(memory.forgotten(), 2u);
}

TEST(Memory, BoundsTheTimesOfAllKeysTogether) {
  Memory memory({.keys = 100, .times = 10});
  const Memory::Window window{.length_ns = 1000, .most = 8};
  for (std::uint64_t i = 0; i < 8; ++i) memory.count(window, "a", i);
  for (std::uint64_t i = 8; i < 13; ++i) memory.count(window, "b", i);
  EXPECT_EQ(memory.keys(), 1u);
  EXPECT_EQ(memory.count(window, "b", 13), 6u);
  for (std::uint64_t i = 14; i < 100; ++i) memory.count(window, "b", i);
  EXPECT_EQ(memory.count({.length_ns = 1000, .most = 8}, "b", 100), 8u);
}

TEST(Memory, ATimeThatGoesBackDoesNoHarm) {
  Memory memory({.keys = 2, .times = 10});
  const Memory::Window window{.length_ns = 10, .most = 9};
  memory.count(window, "a", 1000);
  EXPECT_EQ(memory.count(window, "a", 5), 2u);
  for (const char* key : {"b", "c", "d"}) memory.count(window, key, 1);
  EXPECT_EQ(memory.keys(), 2u);
}

TEST(Count, IsOfTheSameKeyWithinTheTime) {
  const Condition condition = compiled("name startswith x and count(pid, 1s) > 3");
  EXPECT_TRUE(condition.remembers());
  Memory memory;
  std::uint64_t now = 5 * second;
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(condition.evaluate(event("x", 1), &memory, now += 10));
  // Another key, and what the part before count() does not hold for, are not counted.
  EXPECT_FALSE(condition.evaluate(event("x", 2), &memory, now += 10));
  EXPECT_FALSE(condition.evaluate(event("y", 1), &memory, now += 10));
  EXPECT_TRUE(condition.evaluate(event("x", 1), &memory, now += 10));
  EXPECT_TRUE(condition.evaluate(event("xyz", 1), &memory, now += 10));
  EXPECT_FALSE(condition.evaluate(event("x", 1), &memory, now + 2 * second));
}

TEST(Count, MayHaveSeveralKeysAndComparisons) {
  Memory memory;
  const Condition two = compiled("count(pid, cpu, 1m) >= 2");
  EXPECT_FALSE(two.evaluate(event("x", 1, 1), &memory, 1));
  EXPECT_FALSE(two.evaluate(event("x", 1, 2), &memory, 2));
  EXPECT_TRUE(two.evaluate(event("x", 1, 1), &memory, 3));
  Memory other;
  const Condition first = compiled("count(name, 1h) == 1");
  EXPECT_TRUE(first.evaluate(event("x", 1), &other, 1));
  EXPECT_FALSE(first.evaluate(event("x", 1), &other, 2));
  EXPECT_TRUE(first.evaluate(event("y", 1), &other, 3));
}

TEST(Count, WithoutAMemoryOrAKeyDoesNotHold) {
  const Condition condition = compiled("count(pid, 1s) >= 0");
  EXPECT_FALSE(condition.evaluate(event("x", 1)));
  Memory memory;
  EXPECT_FALSE(condition.evaluate(FieldValues({}), &memory, 1));
  EXPECT_EQ(memory.keys(), 0u);
  EXPECT_TRUE(condition.evaluate(event("x", 1), &memory, 1));
}

TEST(Count, StandsAloneBetweenTheOutermostAnds) {
  for (const char* text : {"not count(pid, 1s) > 3", "pid == 1 or count(pid, 1s) > 3",
                           "(count(pid, 1s) > 3)", "count(pid, 1s) > 3 and pid == 1 or cpu == 2"}) {
    EXPECT_THAT(why(text), HasSubstr("count() stands alone between the outermost `and`s")) << text;
  }
  compiled("(pid == 1 or cpu == 2) and count(pid, 1s) > 3 and count(name, 1m) > 4 and cpu == 1");
}

TEST(Count, ErrorsSayWhere) {
  EXPECT_THAT(why("pid == 1 and count(pid) > 3"),
              HasSubstr("count() takes fields and, at last, a duration: count(pid, 10s), at "
                        "character 14"));
  EXPECT_THAT(why("count(1s) > 3"), HasSubstr("takes fields"));
  EXPECT_THAT(why("count(pid, 0s) > 3"), HasSubstr("takes fields"));
  EXPECT_THAT(why("count(pid, 1s > 3"), HasSubstr("a parenthesis is not closed"));
  EXPECT_THAT(why("count(pid, 1s)"), HasSubstr("count() is compared with a number by"));
  EXPECT_THAT(why("count(pid, 1s) in (3)"), HasSubstr("count() is compared with a number by"));
  EXPECT_THAT(why("count(pid, 1s) > many"), HasSubstr("a number up to 1000, at character 18"));
  EXPECT_THAT(why("count(pid, 1s) > 1001"), HasSubstr("a number up to 1000"));
  EXPECT_THAT(why("count(nosuch, 1s) > 1"), HasSubstr("no field is called 'nosuch'"));
  EXPECT_THAT(why("count(, 1s) > 1"), HasSubstr("a field or a duration was expected"));
  EXPECT_THAT(why("count == 1"), HasSubstr("a name was expected, and 'count' is none"));
}

}  // namespace
}  // namespace vmsight::detect_remembered_test
