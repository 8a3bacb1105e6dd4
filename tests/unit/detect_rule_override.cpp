#include "detect/rule_file.h"

#include "unit/detect_rules.h"

namespace vmsight::detect_rule_override_test {
namespace {

using namespace detect_test;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::uint64_t second = 1'000'000'000;

const std::string base = R"(
- list: l
  items: [a]
- macro: m
  condition: comm == a
- rule: x
  desc: d
  condition: m
  output: o
  priority: notice
  tags: [t]
  action: [case]
  references: [r]
  limit: {every: 1s}
  probe: kprobe:x
  exceptions:
    - {name: one, fields: comm, values: [a, b]}
    - {name: two, fields: [comm, uid], comps: [=, =], values: [[a, 1]]}
    - {name: none, fields: [comm]}
)";

RuleSet changed(const std::string& text) {
  return load_rule_texts({{"base.yaml", base}, {"r.yaml", text}});
}

TEST(RuleOverrides, AppendAndReplace) {
  const RuleSet set = changed(R"(
- list: l
  items: [b, c]
  override: {items: append}
- macro: m
  condition: or comm == b
  override: {condition: append}
- rule: x
  condition: and uid == 1
  output: more
  desc: e
  tags: [t, u]
  action: [pause]
  references: [s]
  priority: critical
  enabled: false
  limit: {every: 2s}
  integrity: {check: all}
  false_positives: f
  test: g
  override:
    condition: append
    output: append
    desc: append
    tags: append
    action: append
    references: append
    priority: replace
    enabled: replace
    limit: replace
    integrity: replace
    false_positives: replace
    test: replace
)");
  EXPECT_THAT(messages(set), IsEmpty());
  EXPECT_THAT(set.lists.at("l"), ElementsAre("a", "b", "c"));
  EXPECT_EQ(set.macros.at("m").text, "comm == a or comm == b");
  ASSERT_THAT(set.rules, SizeIs(1));
  const Rule& rule = set.rules[0];
  EXPECT_EQ(rule.condition.text, "m and uid == 1");
  EXPECT_EQ(to_string(rule.condition.place), "r.yaml:9");
  EXPECT_EQ(rule.output.text, "o more");
  EXPECT_EQ(rule.desc, "d e");
  EXPECT_THAT(rule.tags, ElementsAre("t", "u"));
  EXPECT_THAT(rule.actions, SizeIs(2));
  EXPECT_THAT(rule.references, ElementsAre("r", "s"));
  EXPECT_EQ(rule.priority, Priority::critical);
  EXPECT_FALSE(rule.enabled);
  EXPECT_EQ(rule.limit->every_ns, 2 * second);
  EXPECT_EQ(kind_name(rule.kind), "integrity");
  EXPECT_EQ(rule.false_positives, "f");
  EXPECT_EQ(rule.test, "g");
  EXPECT_EQ(rule.place.file, "base.yaml");
}

TEST(RuleOverrides, ReplaceTexts) {
  const RuleSet set = changed(
      "- list: l\n  items: [b]\n  override: {items: replace}\n"
      "- macro: m\n  condition: pid == 1\n  override: {condition: replace}\n"
      "- rule: x\n  condition: uid == 1\n  output: p\n  desc: e\n  tags: []\n  action: []\n"
      "  references: []\n  exceptions: []\n  probe: [a, b]\n  returns: true\n"
      "  override: {condition: replace, output: replace, desc: replace, tags: replace, action: "
      "replace, references: replace, exceptions: replace, probe: replace}\n");
  EXPECT_THAT(messages(set), IsEmpty());
  EXPECT_THAT(set.lists.at("l"), ElementsAre("b"));
  EXPECT_EQ(set.macros.at("m").text, "pid == 1");
  const Rule& rule = set.rules.at(0);
  EXPECT_EQ(rule.condition.text, "uid == 1");
  EXPECT_EQ(rule.output.text, "p");
  EXPECT_THAT(rule.tags, IsEmpty());
  EXPECT_THAT(rule.actions, IsEmpty());
  EXPECT_THAT(rule.exceptions, IsEmpty());
  EXPECT_TRUE(std::get<ProbeRule>(rule.kind).returns);
}

TEST(RuleOverrides, AppendExceptions) {
  const RuleSet set = changed(R"(
- rule: x
  exceptions:
    - {name: one, values: [c]}
    - {name: two, values: [[b, 2], [c, 3]]}
    - {name: none, fields: [comm], comps: [=], values: [[q]]}
    - {name: new, fields: [comm], comps: [startswith], values: [[z]]}
  override: {exceptions: append}
)");
  EXPECT_THAT(messages(set), IsEmpty());
  const auto& exceptions = set.rules.at(0).exceptions;
  ASSERT_THAT(exceptions, SizeIs(4));
  ASSERT_THAT(exceptions[0].values, SizeIs(1));
  EXPECT_THAT(exceptions[0].values[0].at(0).items, ElementsAre("a", "b", "c"));
  EXPECT_THAT(exceptions[1].values, SizeIs(3));
  EXPECT_THAT(exceptions[2].values, SizeIs(1));
  EXPECT_EQ(exceptions[3].name, "new");
}

TEST(RuleOverrides, ErrorsSayWhatCannotBe) {
  const std::string over = "- rule: x\n";
  const Wrong all[] = {
      {"- rule: y\n  enabled: false\n  override: {enabled: replace}\n",
       "r.yaml:1: rule \"y\": there is none yet that could be overridden"},
      {"- list: k\n  items: []\n  override: {items: append}\n",
       "r.yaml:1: list \"k\": there is none yet that could be overridden"},
      {over + "  enabled: false\n", "r.yaml:1: rule \"x\": it is defined already, at base.yaml:6",
       "to change it, write override: {KEY: replace} with it"},
      {over + "  enabled: false\n  override: {enabled: append}\n",
       "r.yaml:3: rule \"x\": key \"override.enabled\": it can be replaced, not appended to"},
      {over + "  enabled: false\n  override: {enabled: often}\n",
       "r.yaml:3: rule \"x\": key \"override.enabled\": replace was expected"},
      {over + "  desc: e\n  override: {desc: often}\n",
       "r.yaml:3: rule \"x\": key \"override.desc\": append or replace was expected"},
      {over + "  override: {enabled: replace}\n",
       "r.yaml:2: rule \"x\": key \"override.enabled\": the item has no such key to override with"},
      {over + "  desc: e\n  tags: [a]\n  override: {desc: append}\n",
       "r.yaml:3: rule \"x\": key \"tags\": the item overrides another, and does not say so of "
       "this key",
       "write override: {tags: replace}"},
      {over + "  override: {name: replace}\n",
       "r.yaml:2: rule \"x\": key \"override.name\": it cannot be overridden",
       "what can: condition"},
      {over + "  override: replace\n",
       "r.yaml:2: rule \"x\": key \"override\": keys were expected below it"},
      {over + "  desc: e\n  colour: red\n  override: {desc: append}\n",
       "r.yaml:3: rule \"x\": key \"colour\": it has no meaning here"},
      {over + "  condition: and\n  override: {condition: append}\n",
       "r.yaml:2: rule \"x\": condition: a name was expected, at character 6 (\"\")"},
      {over + "  exceptions: [{name: new, values: [a]}]\n  override: {exceptions: append}\n",
       "r.yaml:2: rule \"x\": exception \"new\": it is new, and needs fields"},
      {over + "  exceptions: [{name: two, values: [a]}]\n  override: {exceptions: append}\n",
       "r.yaml:2: rule \"x\": exception \"two\": a row needs one value for each of its fields"},
      {over + "  exceptions: [{name: one, fields: pid, values: [a]}]\n  override: {exceptions: "
              "append}\n",
       "r.yaml:2: rule \"x\": exception \"one\": it has other fields or comps already"},
      {"- macro: m\n  condition: x\n  items: [a]\n  override: {items: append}\n",
       "r.yaml:4: macro \"m\": key \"override.items\": it cannot be overridden"},
  };
  for (const auto& [text, message, hint] : all) {
    const RuleSet set = changed(text);
    ASSERT_FALSE(set.errors.empty()) << text;
    EXPECT_TRUE(set.errors[0].message.starts_with(message)) << text << set.errors[0].message;
    EXPECT_TRUE(set.errors[0].hint.starts_with(hint)) << text << set.errors[0].hint;
    // What cannot be changed stays as it is, unless what it became is wrong.
    if (message.find("condition: a name") == message.npos) {
      EXPECT_THAT(set.rules, SizeIs(1)) << text;
    }
  }
}

TEST(RuleOverrides, OfABadRuleAreNoErrorsOfTheirOwn) {
  const RuleSet set = loaded(
      "- rule: x\n  desc: d\n- rule: x\n  enabled: false\n  override: "
      "{enabled: replace}\n");
  EXPECT_THAT(messages(set), SizeIs(3));
  for (const std::string& message : messages(set)) {
    EXPECT_TRUE(message.starts_with("r.yaml:1: ")) << message;
  }
}

}  // namespace
}  // namespace vmsight::detect_rule_override_test
