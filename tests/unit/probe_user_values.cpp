#include "probe/user_values.h"

#include <gtest/gtest.h>

namespace vmsight::probe_user_values_test {
namespace {

Fetched bytes(std::string text) {
  return {.ok = true, .value = 0x7ffe0000, .bytes = std::move(text)};
}
constexpr Fetched null{.ok = true}, absent{.value = 0x7ffe0000};

std::string text(UserValue kind, std::vector<Fetched> fetched, std::uint64_t length = 0) {
  std::vector<const Fetched*> all;
  for (const Fetched& one : fetched) all.push_back(&one);
  return user_text(kind, all, length);
}

TEST(UserValues, BuffersEndWhereTheCallSays) {
  EXPECT_EQ(text(UserValue::given, {bytes("hello\nand what stands behind")}, 6), "\"hello\\n\"");
  EXPECT_EQ(text(UserValue::given, {bytes("ELF")}, 100),
            "\"ELF\"...");  // a NUL within, or too long
  EXPECT_EQ(text(UserValue::given, {bytes("x")}, 0), "\"\"");
  EXPECT_EQ(text(UserValue::given, {bytes(std::string(256, 'a'))}, ~0ULL),
            "\"" + std::string(256, 'a') + "\"...");
  EXPECT_EQ(text(UserValue::filled_line, {bytes("/")}, 2), "\"/\"");
  EXPECT_EQ(text(UserValue::given, {absent}, 5), "");
  EXPECT_EQ(text(UserValue::given, {null}, 5), "");
  EXPECT_EQ(text(UserValue::given, {}, 5), "");
}

TEST(UserValues, ListsOfStrings) {
  EXPECT_EQ(text(UserValue::strings, {bytes("ls"), bytes("-l"), null, bytes("behind")}),
            "[\"ls\", \"-l\"]");
  EXPECT_EQ(text(UserValue::strings, {bytes("ls"), absent}), "[\"ls\", ...]");
  EXPECT_EQ(text(UserValue::strings, {bytes("a"), bytes("b")}), "[\"a\", \"b\", ...]");
}

TEST(UserValues, Addresses) {
  using namespace std::string_literals;
  const Fetched none = absent;
  EXPECT_EQ(
      text(UserValue::socket_address, {bytes("\2\0\0\x50\x7f\0\0\1\0\0\0\0\0\0\0\0"s), none, none}),
      "{AF_INET, 127.0.0.1:80}");
  const std::string six = "\xa\0\1\xbb\0\0\0\0"s + std::string(15, '\0') + "\1\0\0\0\0"s;
  EXPECT_EQ(text(UserValue::socket_address, {bytes(six.substr(0, 16)), bytes(six), none}),
            "{AF_INET6, [::1]:443}");
  EXPECT_EQ(text(UserValue::socket_address, {bytes(six.substr(0, 16)), none, none}), "{AF_INET6}");
  EXPECT_EQ(text(UserValue::socket_address, {bytes("\1\0/run/a\0bcdefgh"s), none, bytes("/run/a")}),
            "{AF_UNIX, \"/run/a\"}");
  EXPECT_EQ(text(UserValue::socket_address, {bytes("\xff\xff"), none, none}),
            "{0xffff /* AF_??? */}");
  EXPECT_EQ(text(UserValue::socket_address, {bytes("\2"), none, none}), "");
}

TEST(UserValues, Times) {
  using namespace std::string_literals;
  EXPECT_EQ(text(UserValue::time, {bytes("\1\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0"s)}),
            "{tv_sec=1, tv_nsec=5}");
  EXPECT_EQ(text(UserValue::time, {bytes("short")}), "");
}

TEST(UserValues, AreFetchedWhereTheyAreWhole) {
  const ProbeFetch pointer{.base = reg::rdi, .step_count = 1, .steps = {104}};
  const auto filled = user_fetches(UserValue::filled, pointer);
  ASSERT_EQ(filled.size(), 1u);
  EXPECT_TRUE(filled[0].from_entry);
  const auto strings = user_fetches(UserValue::strings, pointer);
  ASSERT_GE(strings.size(), 2u);
  EXPECT_EQ(strings[1].step_count, 2);
  EXPECT_EQ(strings[1].steps[1], 8);
  EXPECT_FALSE(strings[1].from_entry);
  EXPECT_EQ(user_rule("write", 1)->length, 2);
  EXPECT_EQ(user_rule("write", 0), nullptr);
}

}  // namespace
}  // namespace vmsight::probe_user_values_test
