#include "detect/alarm_message.h"

#include <gtest/gtest.h>

namespace vmsight::detect_alarm_message_test {
namespace {

using namespace detect;
using namespace std::chrono_literals;

Alarm full_alarm() {
  return {.rule = "r\xff",
          .priority = Priority::alert,
          .tags = {"a", "b\n"},
          .vm = "web",
          .time_ns = ~0ULL,
          .output = "\x1b[31m",
          .fields = {{"text", std::string("\xfe\x00z", 3)},
                     {"list", std::vector<std::string>{"\x80", "y"}},
                     {"number", std::uint64_t{1} << 63},
                     {"below", std::int64_t{-7}},
                     {"flag", true},
                     {"none", std::monostate()}},
          .evidence = {{"deep", {{"text", "\xf0"}, {"list", {1, 2}}}}},
          .count = 3,
          .first_ns = 1,
          .last_ns = 2,
          .pid = 12,
          .commands = {{.arguments = {"/bin/sh", "-c", "cat"}, .limit = 10s}}};
}

TEST(AlarmMessage, AnAlarmComesBackByteForByte) {
  const Alarm sent = full_alarm();
  auto came = frame_of(pack_alarm(sent));
  const auto message = take_message(came);
  ASSERT_TRUE(message && *message);
  EXPECT_TRUE(came.empty());
  const auto alarm = unpack_alarm(**message);
  ASSERT_TRUE(alarm) << alarm.error().message;
  EXPECT_EQ(alarm->rule, sent.rule);
  EXPECT_EQ(alarm->priority, sent.priority);
  EXPECT_EQ(alarm->tags, sent.tags);
  EXPECT_EQ(alarm->vm, sent.vm);
  EXPECT_EQ(alarm->time_ns, sent.time_ns);
  EXPECT_EQ(alarm->output, sent.output);
  EXPECT_EQ(alarm->fields, sent.fields);
  EXPECT_EQ(alarm->evidence, sent.evidence);
  EXPECT_EQ(alarm->count, sent.count);
  EXPECT_EQ(alarm->first_ns, sent.first_ns);
  EXPECT_EQ(alarm->last_ns, sent.last_ns);
  EXPECT_EQ(alarm->pid, 12);
  ASSERT_EQ(alarm->commands.size(), 1u);
  EXPECT_EQ(alarm->commands[0].arguments, sent.commands[0].arguments);
  EXPECT_EQ(alarm->commands[0].limit, 10s);
}

TEST(AlarmMessage, APieceIsNoMessageYet) {
  const auto whole = frame_of(pack_alarm(full_alarm()));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    std::vector<std::uint8_t> piece(whole.begin(),
                                    whole.begin() + static_cast<std::ptrdiff_t>(size));
    const auto message = take_message(piece);
    ASSERT_TRUE(message);
    EXPECT_FALSE(*message);
    EXPECT_EQ(piece.size(), size);
  }
  auto two = whole;
  two.insert(two.end(), whole.begin(), whole.end());
  EXPECT_TRUE(*take_message(two));
  EXPECT_EQ(two, whole);
}

TEST(AlarmMessage, WhatIsNoneIsAnError) {
  std::vector<std::uint8_t> huge = {0xff, 0xff, 0xff, 0xff, 0};
  EXPECT_FALSE(take_message(huge));
  std::vector<std::uint8_t> broken = {2, 0, 0, 0, 0xff, 0xff};
  EXPECT_FALSE(take_message(broken));
  auto packed = pack_alarm(full_alarm());
  const auto whole = packed;
  for (const auto& [key, value] : whole.items()) {
    auto without = whole;
    without.erase(key);
    EXPECT_FALSE(unpack_alarm(without)) << key;
  }
  packed["priority"] = 8;
  EXPECT_FALSE(unpack_alarm(packed));
  EXPECT_FALSE(unpack_alarm("text"));
}

}  // namespace
}  // namespace vmsight::detect_alarm_message_test
