#include "detect/compiled_rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/detect_rules.h"

namespace vmsight::detect_compiled_rule_test {
namespace {

using namespace detect_test;
using Kind = FieldType::Kind;
using testing::ElementsAre;
using testing::HasSubstr;

const FieldTable& names() {
  static const FieldTable table({{"comm", {Kind::text}},
                                 {"path", {Kind::text}},
                                 {"pid", {Kind::signed_number, 32}},
                                 {"uid", {Kind::number, 32}},
                                 {"task", {Kind::address}}});
  return table;
}

FieldValues event(std::string comm, std::uint64_t uid, std::string path = "/etc/passwd") {
  return FieldValues({{"comm", std::move(comm)},
                      {"path", std::move(path)},
                      {"pid", std::int64_t{7}},
                      {"uid", uid},
                      {"task", std::uint64_t{0xffff888000001000}}});
}

constexpr const char* lists =
    "- list: shells\n  items: [bash, sh]\n- macro: is_shell\n  condition: comm in (shells)\n";

CompiledRule compiled(const std::string& more) {
  RuleSet set = good(lists + rule("x", "  probe: p\n" + more));
  auto made = CompiledRule::compile(set.rules.at(0), set, names());
  EXPECT_TRUE(made) << made.error().message;
  return *std::move(made);
}

Error refused(const std::string& text) {
  RuleSet set = good(lists + text);
  const auto made = CompiledRule::compile(set.rules.at(0), set, names());
  EXPECT_FALSE(made) << text;
  return made ? Error() : made.error();
}

TEST(CompiledRule, MatchesByItsCondition) {
  const CompiledRule made = compiled("  condition: is_shell and uid == 33\n");
  Memory memory;
  EXPECT_TRUE(made.matches(event("bash", 33), memory, 1));
  EXPECT_FALSE(made.matches(event("bash", 34), memory, 1));
  EXPECT_TRUE(compiled("").matches(event("bash", 34), memory, 1));
}

TEST(CompiledRule, ExceptionsSuppressTheAlarm) {
  const CompiledRule made = compiled(R"yaml(  condition: path startswith /etc
  exceptions:
    - {name: alone, fields: comm, values: [shells, cat]}
    - name: tuples
      fields: [comm, uid, path]
      comps: [in, =, endswith]
      values:
        - [[vi, vim], 0, passwd]
        - ["(ed, shells)", 1, shadow]
        - [dog, 2, d]
    - {name: none, fields: [comm, uid]}
    - {name: prefix, fields: [comm], comps: [startswith], values: [[kworker]]}
)yaml");
  Memory memory;
  for (const auto& [comm, uid, path] :
       std::vector<std::tuple<const char*, std::uint64_t, const char*>>{
           {"sh", 9, "/etc/x"},
           {"cat", 9, "/etc/x"},
           {"vim", 0, "/etc/passwd"},
           {"ed", 1, "/etc/shadow"},
           {"dog", 2, "/etc/d"},
           {"kworker/0", 2, "/etc/d"}}) {
    EXPECT_FALSE(made.matches(event(comm, uid, path), memory, 1)) << comm;
  }
  for (const auto& [comm, uid, path] :
       std::vector<std::tuple<const char*, std::uint64_t, const char*>>{{"shells", 9, "/etc/x"},
                                                                        {"vim", 1, "/etc/passwd"},
                                                                        {"vim", 0, "/etc/x"},
                                                                        {"ed", 0, "/etc/shadow"}}) {
    EXPECT_TRUE(made.matches(event(comm, uid, path), memory, 1)) << comm;
  }
  // What is absent is no exception.
  EXPECT_TRUE(made.matches(FieldValues({{"path", std::string("/etc/x")}}), memory, 1));
}

TEST(CompiledRule, WhatIsExceptedIsNotCounted) {
  const CompiledRule made = compiled(
      "  condition: path startswith /etc and count(pid, 1m) > 2\n"
      "  exceptions: [{name: a, fields: comm, values: [cat]}]\n");
  Memory memory;
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(made.matches(event("cat", 1), memory, 1));
  EXPECT_FALSE(made.matches(event("dog", 1), memory, 1));
  EXPECT_FALSE(made.matches(event("dog", 1), memory, 1));
  EXPECT_TRUE(made.matches(event("dog", 1), memory, 1));
}

TEST(CompiledRule, MakesAlarms) {
  RuleSet set = good(
      "- rule: x\n  desc: d\n  output: \"%comm at %task\"\n  priority: critical\n  tags: [t]\n"
      "  probe: p\n  condition: uid == 1\n  limit: {key: [pid, uid], every: 5s}\n");
  const auto made = CompiledRule::compile(set.rules.at(0), set, names(), "web");
  ASSERT_TRUE(made);
  const Alarm alarm = made->alarm(event("a\n", 1), 77);
  EXPECT_EQ(alarm.rule, "x");
  EXPECT_EQ(alarm.priority, Priority::critical);
  EXPECT_THAT(alarm.tags, ElementsAre("t"));
  EXPECT_EQ(alarm.vm, "web");
  EXPECT_EQ(alarm.time_ns, 77u);
  EXPECT_EQ(alarm.first_ns, 77u);
  EXPECT_EQ(alarm.output, "a\\x0a at 0xffff888000001000");
  ASSERT_EQ(alarm.fields.size(), 4u);
  EXPECT_EQ(alarm.fields[0], std::pair(std::string("comm"), Value(std::string("a\n"))));
  EXPECT_EQ(alarm.fields[1],
            std::pair(std::string("task"), Value(std::string("0xffff888000001000"))));
  EXPECT_EQ(alarm.fields[2].first, "uid");
  EXPECT_EQ(alarm.fields[3].first, "pid");
  EXPECT_EQ(made->limit_every_ns(), 5'000'000'000u);
  EXPECT_NE(made->limit_key(event("a", 1)), made->limit_key(event("a", 2)));
  EXPECT_EQ(made->limit_key(event("a", 1)), made->limit_key(event("b", 1)));
  EXPECT_EQ(compiled("").limit_every_ns(), 0u);
  EXPECT_EQ(compiled("").limit_key(event("a", 1)), "");
}

TEST(CompiledRule, EveryRuleHasTheVmAsAField) {
  RuleSet set = good(
      "- rule: x\n  desc: d\n  output: \"%vm: %comm\"\n  priority: critical\n  probe: p\n"
      "  condition: vm startswith web\n  limit: {key: [vm], every: 5s}\n"
      "  exceptions: [{name: backup, fields: [vm], values: [[web-bak]]}]\n");
  Memory memory;
  const auto web = CompiledRule::compile(set.rules.at(0), set, names(), "web");
  const auto backup = CompiledRule::compile(set.rules.at(0), set, names(), "web-bak");
  const auto mail = CompiledRule::compile(set.rules.at(0), set, names(), "mail");
  ASSERT_TRUE(web && backup && mail);
  EXPECT_TRUE(web->matches(event("a", 1), memory, 1));
  EXPECT_FALSE(backup->matches(event("a", 1), memory, 1));
  EXPECT_FALSE(mail->matches(event("a", 1), memory, 1));
  EXPECT_EQ(web->alarm(event("a", 1), 7).output, "web: a");
  EXPECT_NE(web->limit_key(event("a", 1)), mail->limit_key(event("a", 1)));
}

TEST(CompiledRule, ErrorsSayFileLineRuleAndWhy) {
  const std::string start = "r.yaml:5: rule \"x\": ";
  EXPECT_EQ(refused(rule("x", "  probe: p\n  condition: nosuch == 1\n")).message,
            "r.yaml:10: rule \"x\": condition: no field is called 'nosuch', at character 1 "
            "(\"nosuch == 1\")");
  EXPECT_EQ(refused(rule("x", "  probe: p\n  condition: is_shel\n")).message,
            "r.yaml:10: rule \"x\": condition: neither a macro nor a field is called 'is_shel', at "
            "character 1 (\"is_shel\")");
  EXPECT_THAT(refused(rule("x", "  probe: p\n  condition: comm < 3\n")).message,
              HasSubstr("r.yaml:10: rule \"x\": condition: 'comm' is a text, of which '<'"));
  EXPECT_EQ(
      refused("- rule: x\n  desc: d\n  output: '%nosuch'\n  priority: debug\n  probe: p\n").message,
      "r.yaml:7: rule \"x\": output: no field is called 'nosuch', at character 1 "
      "(\"%nosuch\")");
  EXPECT_EQ(refused(rule("x", "  probe: p\n  exceptions: [{name: e, fields: nosuch}]\n")).message,
            start + "exception \"e\": no field is called 'nosuch'");
  EXPECT_EQ(refused(rule("x", "  probe: p\n  exceptions: [{name: e, fields: uid, values: [a]}]\n"))
                .message,
            start + "exception \"e\": 'a' is not a number");
  const Error limit = refused(rule("x", "  probe: p\n  limit: {key: nosuch, every: 1s}\n"));
  EXPECT_EQ(limit.message, start + "no field is called 'nosuch'");
  EXPECT_THAT(limit.hint, HasSubstr("fields of this rule are "));
}

}  // namespace
}  // namespace vmsight::detect_compiled_rule_test
