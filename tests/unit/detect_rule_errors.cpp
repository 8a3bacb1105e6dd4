#include "detect/rule_file.h"

#include "unit/detect_rules.h"

namespace vmsight::detect_rule_errors_test {
namespace {

using namespace detect_test;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

TEST(RuleFileErrors, SayFileLineRuleAndWhy) {
  const Wrong all[] = {
      {rule("x", "  probe: a\n  colour: red\n"),
       "r.yaml:6: rule \"x\": key \"colour\": it has no meaning here", "keys here are "},
      {rule("x", "  probe: a\n  source: syscall\n"),
       "r.yaml:6: rule \"x\": key \"source\": it has no meaning here"},
      {rule("x", ""),
       "r.yaml:1: rule \"x\": it needs one of the keys heartbeat, progress, probe, state, "
       "integrity"},
      {rule("x", "  probe: a\n  integrity: {check: all}\n"),
       "r.yaml:6: rule \"x\": key \"integrity\": it is a rule of the kind \"probe\" already",
       "write a rule for each kind"},
      {rule("x", "  probe: {a: b}\n"),
       "r.yaml:5: rule \"x\": key \"probe\": a text, or a list of them, was expected"},
      {rule("x", "  probe: []\n"),
       "r.yaml:5: rule \"x\": key \"probe\": a text, or a list of them, was expected"},
      {rule("x", "  probe: a\n  enabled: perhaps\n"),
       "r.yaml:6: rule \"x\": key \"enabled\": true or false was expected"},
      {rule("x", "  probe: a\n  tags: shell\n"),
       "r.yaml:6: rule \"x\": key \"tags\": a list of texts was expected"},
      {rule("x", "  probe: a\n  tags: [[a]]\n"),
       "r.yaml:6: rule \"x\": key \"tags\": a list of texts was expected"},
      {rule("x", "  probe: a\n  condition: [a]\n"),
       "r.yaml:6: rule \"x\": key \"condition\": a text was expected"},
      {rule("x", "  probe: a\n  condition:\n"),
       "r.yaml:6: rule \"x\": key \"condition\": a text was expected"},
      {rule("x", "  integrity: all\n"),
       "r.yaml:5: rule \"x\": key \"integrity\": keys were expected below it"},
      {rule("x", "  integrity: {check: all, evry: 1s}\n"),
       "r.yaml:5: rule \"x\": key \"integrity.evry\": it has no meaning here",
       "keys here are every, check"},
      {rule("x", "  integrity: {every: 1s}\n"),
       "r.yaml:5: rule \"x\": it needs the key \"integrity.check\""},
      {rule("x", "  integrity:\n    check: all\n    every: 5 parsecs\n"),
       "r.yaml:7: rule \"x\": key \"integrity.every\": \"5 parsecs\" is not a duration",
       "write 100ms, 30s, 5m or 1h"},
      {rule("x", "  integrity: {check: all, every: 0s}\n"),
       "r.yaml:5: rule \"x\": key \"integrity.every\": \"0s\" is not a duration"},
      {rule("x", "  state: {of: sockets, when: often}\n"),
       "r.yaml:5: rule \"x\": key \"state.when\": \"often\" is none of present, appeared, gone, "
       "changed"},
      {rule("x", "  state: {of: sockets, when: gone, for: 5s}\n"),
       "r.yaml:5: rule \"x\": key \"state.for\": only what is present can be so for a time"},
      {rule("x", "  state: {of: sockets}\n"),
       "r.yaml:5: rule \"x\": it needs the key \"state.when\""},
      {rule("x", "  progress: {of: cat, for: 1s}\n"),
       "r.yaml:5: rule \"x\": key \"progress.of\": \"cat\" is none of process, kernel-thread, cpu, "
       "task, runqueue, guest"},
      {rule("x", "  progress: {of: cpu, for: 1s, cpu: lots}\n"),
       "r.yaml:5: rule \"x\": key \"progress.cpu\": a percentage of one processor was expected"},
      {rule("x", "  progress: {of: cpu, for: 1s, cpu: 20%%}\n"),
       "r.yaml:5: rule \"x\": key \"progress.cpu\": a percentage of one processor was expected"},
      {rule("x", "  loop: {entry: kprobe:f, exit: kretprobe:f}\n"),
       "r.yaml:5: rule \"x\": key \"loop.exit\": nothing bounds it",
       "write `for`, or `body` and `turns`"},
      {rule("x", "  loop: {entry: kprobe:f, exit: kretprobe:f, turns: 3}\n"),
       "r.yaml:5: rule \"x\": key \"loop.turns\": turns are hits of the body: write both"},
      {rule("x", "  loop: {entry: kprobe:f, exit: kprobe:f, for: 1s}\n"),
       "r.yaml:5: rule \"x\": key \"loop.exit\": entry, body and exit are different places"},
      {rule("x", "  loop: {entry: 'kprobe:f*', exit: kprobe:g, for: 1s}\n"),
       "r.yaml:5: rule \"x\": key \"loop.entry\": one place was expected, not a pattern"},
      {rule("x", "  heartbeat: {probe: a}\n"),
       "r.yaml:5: rule \"x\": it needs the key \"heartbeat.expect\""},
      {rule("x", "  integrity: {check: all}\n  returns: true\n"),
       "r.yaml:6: rule \"x\": key \"returns\": only a rule with \"probe\" has it"},
      {rule("x", "  probe: a\n  limit: {key: pid}\n"),
       "r.yaml:6: rule \"x\": it needs the key \"limit.every\""},
      {rule("x", "  probe: a\n  action: [explode]\n"),
       "r.yaml:6: rule \"x\": key \"action\": \"explode\" is no action",
       "actions are case, \"case core\", pause, snapshot, deny, \"run COMMAND\""},
      {rule("x", "  probe: a\n  action: ['run  ']\n"),
       "r.yaml:6: rule \"x\": key \"action\": \"run  \" is no action"},
      {rule("x", "  state: {of: processes, when: present}\n  action: [deny]\n"),
       "r.yaml:1: rule \"x\": deny: a call can be refused only where a function of the kernel "
       "begins"},
      {rule("x", "  probe: kretprobe:f\n  action: [deny]\n"),
       "r.yaml:1: rule \"x\": deny: a call can be refused only where a function of the kernel "
       "begins"},
      {rule("x", "  probe: kprobe:f+4\n  action: [deny]\n"),
       "r.yaml:1: rule \"x\": deny: a call can be refused only where a function of the kernel "
       "begins"},
      {rule("x", "  probe: [kprobe:f, 'uprobe:/bin/sh:f']\n  action: [deny]\n"),
       "r.yaml:1: rule \"x\": deny: a call can be refused only where a function of the kernel "
       "begins"},
      {rule("x", "  probe: kprobe:f\n  returns: true\n  action: [deny]\n"),
       "r.yaml:1: rule \"x\": deny: a call can be refused only where a function of the kernel "
       "begins"},
      {"- rule: x\n  desc: d\n  output: o\n  priority: urgent\n  probe: a\n",
       "r.yaml:4: rule \"x\": key \"priority\": \"urgent\" is no priority", "priorities are "},
      {rule("x", "  probe: a\n  condition: b in nosuch\n"),
       "r.yaml:6: rule \"x\": condition: no list is called 'nosuch', at character 6 (\"nosuch\")"},
      {"- thing: x\n", "r.yaml:1: a rule, a macro or a list was expected", "write `- rule: NAME`"},
      {"- required_engine_version: 0.26.0\n", "r.yaml:1: a rule, a macro or a list was expected",
       "it is Falco's: leave it out"},
      {"- rule: x\n  macro: y\n", "r.yaml:1: a rule, a macro or a list was expected"},
      {"- rule: [x]\n", "r.yaml:1: a rule, a macro or a list was expected"},
      {"- just text\n", "r.yaml:1: a rule, a macro or a list was expected"},
      {"rule: x\n", "r.yaml:1: a sequence of rules, macros and lists was expected"},
      {"just text\n", "r.yaml:1: a sequence of rules, macros and lists was expected"},
      {"- macro: m\n", "r.yaml:1: macro \"m\": it needs the key \"condition\""},
      {"- macro: m\n  condition: a b\n",
       "r.yaml:2: macro \"m\": condition: no operator is called 'b', at character 3 (\"b\")"},
      {"- macro: m n\n  condition: a\n",
       "r.yaml:1: macro \"m n\": the name of a macro has letters, digits and _, and is no word of "
       "the language"},
      {"- macro: contains\n  condition: a\n", "r.yaml:1: macro \"contains\": the name of a macro"},
      {"- list: l\n", "r.yaml:1: list \"l\": it needs the key \"items\""},
      {"- list: l\n  items: 5\n",
       "r.yaml:2: list \"l\": key \"items\": a list of texts was expected"},
      {"- list: l\n  items: [a, {b: c}]\n",
       "r.yaml:2: list \"l\": key \"items\": a list of texts was expected"},
      {"- list: a,b\n  items: []\n", "r.yaml:1: list \"a,b\": the name of a list has no blanks"},
      {rule("x") + rule("x"), "r.yaml:6: rule \"x\": it is defined already, at r.yaml:1",
       "to change it, write override: {KEY: replace} with it"},
      {"- list: l\n  items: []\n- list: l\n  items: []\n",
       "r.yaml:3: list \"l\": it is defined already, at r.yaml:1"},
      {"- macro: m\n  condition: a\n- macro: m\n  condition: a\n",
       "r.yaml:3: macro \"m\": it is defined already, at r.yaml:1"},
      {rule("x", "  probe: a\n  append: true\n"),
       "r.yaml:6: rule \"x\": key \"append\": it is Falco's old way",
       "write override: {condition: append}"},
      {"- rule: " + std::string(300, 'n') + "\n",
       "r.yaml:1: rule \"" + std::string(256, 'n') + "\": a name has at most 256 bytes"},
  };
  for (const auto& [text, message, hint] : all) {
    const Error error = only_error(text);
    EXPECT_EQ(error.code, ErrorCode::usage);
    EXPECT_TRUE(error.message.starts_with(message)) << text << error.message;
    EXPECT_TRUE(error.hint.starts_with(hint)) << text << error.hint;
  }
}

TEST(RuleFileErrors, OfYamlSayTheLine) {
  const RuleSet cut = loaded(rule("a") + "- rule: b\n  desc: [1, 2\n");
  EXPECT_THAT(names(cut), ElementsAre("a"));
  ASSERT_THAT(cut.errors, SizeIs(1));
  EXPECT_THAT(cut.errors[0].message, HasSubstr(": it is not YAML: "));
  EXPECT_TRUE(cut.errors[0].message.starts_with("r.yaml:"));
  EXPECT_EQ(cut.errors[0].hint, "what follows in this file was not read");
  EXPECT_EQ(only_error("- rule: x\n  rule: y\n").message,
            "r.yaml:2: the key \"rule\" stands here twice");
  EXPECT_EQ(only_error("- rule: x\n  [a]: y\n").message, "r.yaml:2: a key was expected");
  EXPECT_EQ(only_error("- !!python/object x\n").message, "r.yaml:1: tags have no meaning here");
  EXPECT_EQ(only_error("- a\n- \x04\n").message, "r.yaml:2: it has the control byte 0x04");
  EXPECT_EQ(only_error("- a\n- \xff\n").message, "r.yaml:2: it is not UTF-8");
  EXPECT_EQ(only_error(std::string("- a\n\0", 5)).message,
            "r.yaml:2: it has the control byte 0x00");
}

TEST(RuleFileErrors, HostileNamesAreEscaped) {
  EXPECT_EQ(only_error("- macro: \"\\e[2J\\n\"\n  condition: a\n").message.substr(0, 31),
            "r.yaml:1: macro \"\\x1b[2J\\x0a\": ");
  EXPECT_THAT(only_error(rule("x", "  probe: a\n  \"\\e[2J\": b\n")).message,
              HasSubstr("key \"\\x1b[2J\""));
}

// ---- bounds ----

TEST(RuleFileBounds, OfAliases) {
  EXPECT_THAT(names(good("- &a\n  rule: x\n  desc: &d dd\n  output: *d\n  priority: notice\n"
                         "  probe: p\n")),
              ElementsAre("x"));
  std::string bomb = "- &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string before = "*a" + std::to_string(i - 1) + " ";
    bomb += "- &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) bomb += (j == 0 ? "" : ", ") + before;
    bomb += "]\n";
  }
  const RuleSet set = loaded(bomb);
  ASSERT_FALSE(set.errors.empty());
  EXPECT_THAT(set.errors.back().message, HasSubstr("with its aliases it has more than 100000"));
  EXPECT_THAT(only_error("- &a [*a]\n").message,
              HasSubstr("r.yaml:1: an alias stands within its own anchor"));
  std::string longer = "- &a " + std::string(500'000, 'x') + "\n";
  for (int i = 0; i < 100; ++i) longer += "- *a\n";
  EXPECT_THAT(loaded(longer).errors.back().message, HasSubstr("or too long ones"));
}

TEST(RuleFileBounds, OfNestingAndKeys) {
  EXPECT_THAT(only_error("- " + std::string(100'000, '[')).message,
              HasSubstr("r.yaml:1: it is nested deeper than 32"));
  std::string maps = "- ";
  for (int i = 0; i < 1000; ++i) maps += "{a: ";
  EXPECT_THAT(only_error(maps).message, HasSubstr("it is nested deeper than 32"));
  std::string sequences;
  for (int i = 0; i < 1000; ++i) sequences += "- ";
  EXPECT_THAT(only_error(sequences).message, HasSubstr("it is nested deeper than 32"));
  std::string keys = "- rule: x\n";
  for (int i = 0; i < 1000; ++i) keys += "  k" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(only_error(keys).message, HasSubstr("a map has more than 256 keys"));
}

TEST(RuleFileBounds, OfSizesRulesAndErrors) {
  EXPECT_EQ(only_error(std::string((1 << 20) + 1, '#')).message,
            "read r.yaml: it has more than 1048576 bytes");
  std::string many;
  for (int i = 0; i < 4100; ++i) {
    const std::string n = std::to_string(i);
    many += "- {rule: r" + n + ", desc: d, output: o, priority: debug, probe: p}\n";
  }
  const RuleSet set = loaded(many);
  EXPECT_THAT(set.rules, SizeIs(4096));
  EXPECT_THAT(set.errors, SizeIs(4));
  EXPECT_EQ(set.errors[0].message, "r.yaml:4097: rule \"r4096\": there are more than 4096");
  std::string wrong;
  for (int i = 0; i < 5000; ++i) wrong += "- x\n";
  const RuleSet errors = loaded(wrong);
  EXPECT_THAT(errors.errors, SizeIs(1001));
  EXPECT_EQ(errors.errors.back().message, "more errors are left out");
}

TEST(RuleFileBounds, ALongConditionIsAnErrorOfItsRule) {
  EXPECT_THAT(
      only_error(rule("x", "  probe: p\n  condition: " + std::string(1'000'000, 'a') + "\n"))
          .message,
      HasSubstr("rule \"x\": condition: it has more than 65536 bytes"));
}

}  // namespace
}  // namespace vmsight::detect_rule_errors_test
