#include "detect/rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "detect/value.h"

namespace vmsight::detect_rule_test {
namespace {

using namespace detect;
using testing::ElementsAre;
using testing::HasSubstr;
using Texts = std::vector<std::string>;

TEST(Duration, IsANumberWithAUnit) {
  const std::pair<const char*, std::uint64_t> all[] = {
      {"30s", 30'000'000'000},
      {"5m", 300'000'000'000},
      {"100ms", 100'000'000},
      {"1h", 3'600'000'000'000},
      {"2d", 172'800'000'000'000},
      {"7us", 7'000},
      {"8ns", 8},
      {"0s", 0},
      {"18446744073709551615ns", ~0ULL},
      {"213503d", 213503ULL * 86'400'000'000'000},
  };
  for (const auto& [text, ns] : all) EXPECT_EQ(parse_duration(text), ns) << text;
  for (const char* text :
       {"", "s", "30", "30 s", " 30s", "30s ", "-1s", "+1s", "1.5s", "1h30m", "30S", "0x10s",
        "213504d", "18446744073709551616ns", "99999999999999999999s", "3parsecs", "1s\n"}) {
    EXPECT_EQ(parse_duration(text), std::nullopt) << text;
  }
}

TEST(Priority, IsFalcosInAnyCase) {
  EXPECT_EQ(parse_priority("EMERGENCY"), Priority::emergency);
  EXPECT_EQ(parse_priority("Warning"), Priority::warning);
  EXPECT_EQ(parse_priority("info"), Priority::informational);
  EXPECT_EQ(parse_priority("debug"), Priority::debug);
  for (const char* text : {"", "warn", "panic", "warning "}) {
    EXPECT_EQ(parse_priority(text), std::nullopt) << text;
  }
  for (unsigned i = 0; i < 8; ++i) {
    const auto priority = static_cast<Priority>(i);
    EXPECT_EQ(parse_priority(to_string(priority)), priority);
  }
  EXPECT_EQ(to_string(Priority::informational), "Informational");
  EXPECT_EQ(static_cast<int>(Priority::debug), 7);
}

std::vector<Rule> some_rules() {
  return {{.name = "a", .tags = {"t", "u"}, .kind = {}},
          {.name = "b", .enabled = false, .tags = {"t"}, .kind = {}},
          {.name = "c", .kind = {}}};
}

Texts chosen(const Selection& selection) {
  auto rules = select(some_rules(), selection);
  EXPECT_TRUE(rules) << rules.error().message;
  Texts names;
  if (!rules) return names;
  for (const Rule& rule : *rules) names.push_back(rule.name);
  return names;
}

TEST(Select, TakesNamesAndTags) {
  EXPECT_THAT(chosen({}), ElementsAre("a", "c"));
  EXPECT_THAT(chosen({.tags = {"t"}}), ElementsAre("a"));
  EXPECT_THAT(chosen({.names = {"c"}, .tags = {"u"}}), ElementsAre("a", "c"));
  EXPECT_THAT(chosen({.names = {"b"}}), ElementsAre("b"));  // named: enabled or not
  EXPECT_THAT(chosen({.disabled = {"a"}}), ElementsAre("c"));
  EXPECT_THAT(chosen({.names = {"b", "c"}, .disabled = {"t"}}), ElementsAre("c"));
}

TEST(Select, RefusesWhatNoRuleHas) {
  for (const Selection& selection :
       {Selection{.names = {"x"}}, Selection{.tags = {"a"}}, Selection{.disabled = {"x\n"}}}) {
    const auto rules = select(some_rules(), selection);
    ASSERT_FALSE(rules);
    EXPECT_EQ(rules.error().code, ErrorCode::not_found);
  }
  const auto rules = select(some_rules(), {.names = {"aa"}});
  EXPECT_EQ(rules.error().message, "no rule has the name \"aa\"");
  EXPECT_EQ(rules.error().hint, "there are: a, b, c");
}

TEST(Value, IsShownInALine) {
  const FieldType text{FieldType::Kind::text}, address{FieldType::Kind::address};
  EXPECT_EQ(show(Value(), text), "<NA>");
  EXPECT_EQ(show(std::string("a\x1b[2J\n\xff"), text), "a\\x1b[2J\\x0a\\xff");
  EXPECT_EQ(show(std::string(), text), "");
  EXPECT_EQ(show(std::uint64_t{255}, {FieldType::Kind::number}), "255");
  EXPECT_EQ(show(std::int64_t{-1}, {FieldType::Kind::signed_number}), "-1");
  EXPECT_EQ(show(std::uint64_t{255}, address), "0xff");
  EXPECT_EQ(show(std::int64_t{-1}, address), "0xffffffffffffffff");
  EXPECT_EQ(show(true, {FieldType::Kind::boolean}), "true");
  EXPECT_EQ(show(Texts{"a", "b\n"}, {FieldType::Kind::text_list}), "a,b\\x0a");
  EXPECT_EQ(show(std::string(10, 'a'), text, 4), "aaaa...");
  EXPECT_EQ(show(Texts(10, "aaa"), {FieldType::Kind::text_list}, 5), "aaa,a...,...");
}

std::string key(const std::vector<Value>& values) {
  std::string made;
  for (const Value& value : values) append_key(made, value);
  return made;
}

TEST(Value, KeysTellValuesApart) {
  const std::vector<std::vector<Value>> all = {
      {std::string("a"), std::string("b")},
      {std::string("ab"), std::string()},
      {std::string(), std::string("ab")},
      {std::string("a4;1:b")},
      {Value(), std::string("ab")},
      {std::uint64_t{1}},
      {std::uint64_t{11}},
      {std::uint64_t{1}, std::uint64_t{1}},
      {std::string("1")},
      {true},
      {Texts{"a", "b"}},
      {Texts{"ab"}},
      {std::string(5000, 'x') + "1"},
      {std::string(5000, 'x') + "2"},
  };
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_LT(key(all[i]).size(), 400u);
    for (std::size_t j = 0; j < all.size(); ++j) {
      EXPECT_EQ(key(all[i]) == key(all[j]), i == j) << i << " " << j;
    }
  }
}

TEST(Nearest, IsTheLikestFirst) {
  EXPECT_THAT(nearest("proc.nam", {"pid", "proc.name", "comm", "proc.args"}, 2),
              ElementsAre("proc.name", "proc.args"));
  EXPECT_THAT(nearest("x", {}), ElementsAre());
  EXPECT_THAT(nearest(std::string(100'000, 'x'), {"a", "b"}, 1), ElementsAre("a"));
}

}  // namespace
}  // namespace vmsight::detect_rule_test
