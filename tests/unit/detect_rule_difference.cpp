#include "detect/rule_difference.h"

#include <gtest/gtest.h>

namespace vmsight::detect_rule_difference_test {
namespace {

using namespace detect;

constexpr const char* text =
    "- list: shells\n  items: [bash, sh]\n"
    "- list: other\n  items: [x]\n"
    "- macro: is_shell\n  condition: comm in (shells)\n"
    "- rule: a\n  desc: d\n  output: o\n  priority: warning\n"
    "  state: {of: processes, when: present, every: 1s}\n"
    "  condition: is_shell and pid > 1\n"
    "  limit: {key: [pid], every: 5m}\n"
    "  action: [case]\n"
    "  exceptions: [{name: e, fields: [comm], comps: [in], values: [[[cron]]]}]\n";

/// Whether the rule is the same after `from` has become `to` in the text.
bool same(const std::string& from, const std::string& to) {
  std::string changed = text;
  const std::size_t at = changed.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  changed.replace(at, from.size(), to);
  const RuleSet before = load_rule_texts({{"a.yaml", text}});
  const RuleSet after = load_rule_texts({{"b.yaml", changed}});
  EXPECT_TRUE(before.errors.empty() && after.errors.empty()) << from << " -> " << to;
  EXPECT_EQ(after.rules.size(), 1u);
  return is_same_rule(before.rules.at(0), before, after.rules.at(0), after);
}

TEST(RuleDifference, WhereItStandsMakesNone) {
  EXPECT_TRUE(same("- rule", "\n# a comment\n\n- rule"));
  EXPECT_TRUE(same("items: [x]", "items: [y]"));  // it is not named
}

TEST(RuleDifference, WhatItSaysDoes) {
  EXPECT_FALSE(same("desc: d", "desc: e"));
  EXPECT_FALSE(same("output: o", "output: p"));
  EXPECT_FALSE(same("warning", "error"));
  EXPECT_FALSE(same("every: 1s", "every: 2s"));
  EXPECT_FALSE(same("present", "appeared"));
  EXPECT_FALSE(same("pid > 1", "pid > 2"));
  EXPECT_FALSE(same("5m", "6m"));
  EXPECT_FALSE(same("[case]", "[case core]"));
  EXPECT_FALSE(same("cron", "crond"));
}

TEST(RuleDifference, WhatItsNamesStandForDoes) {
  EXPECT_FALSE(same("comm in (shells)", "comm in (other)"));
  EXPECT_FALSE(same("[bash, sh]", "[bash, zsh]"));
}

}  // namespace
}  // namespace vmsight::detect_rule_difference_test
