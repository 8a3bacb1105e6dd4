#include "detect/rule_file.h"

#include <sys/stat.h>
#include <unistd.h>
#include <filesystem>
#include <fstream>

#include "support/in_folder.h"
#include "unit/detect_rules.h"

namespace vmsight::detect_rule_file_test {
namespace {

using namespace detect_test;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

constexpr std::uint64_t second = 1'000'000'000;

TEST(RuleFile, ReadsAllOfARule) {
  const RuleSet set = good(R"(
- list: shells
  items: [bash, sh]

- macro: is_shell
  condition: comm in (shells)

- rule: shell of a server
  desc: >
    A server has
    started a shell.
  enabled: false
  probe: [kprobe:begin_new_exec, "uprobe:/bin/bash:main"]
  returns: true
  condition: |
    is_shell
    and uid == 33
  output: "%comm was started"
  priority: WARNING
  tags: [shell, mitre_execution]
  exceptions:
    - name: known
      fields: [comm, parent]
      comps: [=, startswith]
      values:
        - [bash, cron]
        - [sh, at]
  limit: {key: [uid, comm], every: 30s}
  action: [case, pause, snapshot, "run /usr/bin/logger  -t x"]
  references: [https://example.org/1, https://example.org/2]
  false_positives: cron
  test: start one
)");
  ASSERT_THAT(set.rules, SizeIs(1));
  const Rule& rule = set.rules[0];
  EXPECT_EQ(rule.name, "shell of a server");
  EXPECT_EQ(rule.desc, "A server has started a shell.\n");
  EXPECT_FALSE(rule.enabled);
  EXPECT_EQ(rule.condition.text, "is_shell\nand uid == 33\n");
  EXPECT_EQ(to_string(rule.condition.place), "r.yaml:15");
  EXPECT_EQ(rule.output.text, "%comm was started");
  EXPECT_EQ(rule.priority, Priority::warning);
  EXPECT_THAT(rule.tags, ElementsAre("shell", "mitre_execution"));
  ASSERT_THAT(rule.exceptions, SizeIs(1));
  EXPECT_THAT(rule.exceptions[0].comps, ElementsAre("=", "startswith"));
  EXPECT_THAT(rule.exceptions[0].values, SizeIs(2));
  ASSERT_TRUE(rule.limit);
  EXPECT_THAT(rule.limit->key, ElementsAre("uid", "comm"));
  EXPECT_EQ(rule.limit->every_ns, 30 * second);
  Texts actions;
  for (const Action& action : rule.actions) actions.push_back(to_string(action));
  EXPECT_THAT(actions, ElementsAre("case", "pause", "snapshot", "run /usr/bin/logger  -t x"));
  EXPECT_THAT(rule.references, SizeIs(2));
  EXPECT_EQ(rule.false_positives, "cron");
  EXPECT_EQ(rule.test, "start one");
  EXPECT_EQ(rule.place.line, 8u);
  const auto* probe = std::get_if<ProbeRule>(&rule.kind);
  ASSERT_NE(probe, nullptr);
  EXPECT_THAT(probe->probes, ElementsAre("kprobe:begin_new_exec", "uprobe:/bin/bash:main"));
  EXPECT_TRUE(probe->returns);
  EXPECT_THAT(set.lists.at("shells"), ElementsAre("bash", "sh"));
  EXPECT_EQ(set.macros.at("is_shell").text, "comm in (shells)");
}

TEST(RuleFile, ACallIsRefusedWhereAFunctionBegins) {
  const RuleSet set = good(rule("x", "  probe: kprobe:f\n  action: [deny]\n") +
                           rule("y", "  probe: [kprobe:f, 'kprobe:m:g']\n  action: [deny]\n"));
  ASSERT_THAT(set.rules, SizeIs(2));
  EXPECT_EQ(to_string(set.rules[0].actions.at(0)), "deny");
}

TEST(RuleFile, HasSixKinds) {
  const RuleSet set =
      good(rule("h", "  heartbeat: {probe: kprobe:x, expect: 10s, grace: 500ms, per: process}\n") +
           rule("p", "  progress: {of: kernel-thread, cpu: 20%, for: 1m}\n") + rule("k") +
           rule("s", "  state: {of: sockets, when: appeared}\n") +
           rule("i", "  integrity: {check: [idt, text]}\n") +
           rule("h2", "  heartbeat: {probe: [a, b], expect: 1h}\n") +
           rule("p2", "  progress: {of: cpu, for: 100ms}\n") +
           rule("s2", "  state: {of: modules, when: gone, every: 5s}\n") +
           rule("i2", "  integrity: {check: all, every: 1m}\n") +
           rule("s3", "  state: {of: sockets, when: present, for: 30s}\n") +
           rule("l",
                "  loop: {entry: kprobe:f, exit: kretprobe:f, for: 5s, body: kprobe:f+4, turns: "
                "9}\n"));
  ASSERT_THAT(set.rules, SizeIs(11));
  const auto& h = std::get<Heartbeat>(set.rules[0].kind);
  EXPECT_THAT(h.probes, ElementsAre("kprobe:x"));
  EXPECT_EQ(h.expect_ns, 10 * second);
  EXPECT_EQ(h.grace_ns, second / 2);
  EXPECT_EQ(h.per, Heartbeat::Per::process);
  const auto& p = std::get<Progress>(set.rules[1].kind);
  EXPECT_EQ(p.of, Progress::Of::kernel_thread);
  EXPECT_EQ(p.cpu_percent, 20u);
  EXPECT_EQ(p.for_ns, 60 * second);
  EXPECT_FALSE(std::get<ProbeRule>(set.rules[2].kind).returns);
  const auto& s = std::get<StateRule>(set.rules[3].kind);
  EXPECT_EQ(s.of, "sockets");
  EXPECT_EQ(s.when, StateRule::When::appeared);
  EXPECT_EQ(s.every_ns, second);
  EXPECT_EQ(s.for_ns, 0u);
  const auto& i = std::get<Integrity>(set.rules[4].kind);
  EXPECT_THAT(i.checks, ElementsAre("idt", "text"));
  EXPECT_EQ(i.every_ns, 10 * second);
  EXPECT_EQ(std::get<Heartbeat>(set.rules[5].kind).per, Heartbeat::Per::process);
  EXPECT_EQ(std::get<Progress>(set.rules[6].kind).cpu_percent, std::nullopt);
  EXPECT_EQ(std::get<StateRule>(set.rules[7].kind).every_ns, 5 * second);
  EXPECT_THAT(std::get<Integrity>(set.rules[8].kind).checks, ElementsAre("all"));
  EXPECT_EQ(std::get<StateRule>(set.rules[9].kind).for_ns, 30 * second);
  EXPECT_EQ(std::get<Loop>(set.rules[10].kind), (Loop{.entry = "kprobe:f",
                                                      .exit = "kretprobe:f",
                                                      .body = "kprobe:f+4",
                                                      .for_ns = 5 * second,
                                                      .turns = 9}));
}

TEST(RuleFile, EmptyFilesAndDocumentsHaveNoRules) {
  for (const char* text : {"", "\n# a comment\n", "---\n", "---\n---\n", "[]", "- \n"}) {
    EXPECT_THAT(good(text).rules, IsEmpty()) << text;
  }
  EXPECT_THAT(names(good(rule("a") + "---\n" + rule("b"))), ElementsAre("a", "b"));
}

TEST(RuleFile, ABadRuleStopsNothingButItself) {
  const RuleSet set = loaded(rule("a") + "- rule: b\n  desc: d\n  probe: x\n" + rule("c") +
                             rule("d", "  probe: x\n  condition: a ==\n") + rule("e"));
  EXPECT_THAT(names(set), ElementsAre("a", "c", "e"));
  EXPECT_THAT(messages(set),
              ElementsAre("r.yaml:6: rule \"b\": it needs the key \"output\"",
                          "r.yaml:6: rule \"b\": it needs the key \"priority\"",
                          "r.yaml:19: rule \"d\": condition: a value was expected, at character 5 "
                          "(\"\")"));
}

TEST(RuleFile, ListsMayHaveLists) {
  const RuleSet set = good(
      "- list: all\n  items: [a, shells, b, other]\n- list: shells\n  items: [sh, more]\n"
      "- list: more\n  items: [bash]\n- list: empty\n  items: []\n");
  EXPECT_THAT(set.lists.at("all"), ElementsAre("a", "sh", "bash", "b", "other"));
  EXPECT_THAT(set.lists.at("empty"), IsEmpty());
}

TEST(RuleFileErrors, CircularListsAndMacros) {
  const RuleSet lists =
      loaded("- list: a\n  items: [b]\n- list: b\n  items: [c]\n- list: c\n  items: [a]\n" +
             rule("x", "  probe: p\n  condition: comm in (a)\n") + rule("y"));
  EXPECT_THAT(messages(lists),
              ElementsAre("r.yaml:1: list \"a\": its lists are circular, wrong or too long: a > b "
                          "> c > a",
                          "r.yaml:3: list \"b\": its lists are circular, wrong or too long: b > c "
                          "> a > b",
                          "r.yaml:5: list \"c\": its lists are circular, wrong or too long: c > a "
                          "> b > c",
                          "r.yaml:12: rule \"x\": condition: 'a' has errors of its own, at "
                          "character 10 (\"a)\")"));
  EXPECT_THAT(names(lists), ElementsAre("y"));
  const RuleSet macros =
      loaded("- macro: a\n  condition: x == 1 or b\n- macro: b\n  condition: a\n" +
             rule("x", "  probe: p\n  condition: a\n"));
  EXPECT_THAT(messages(macros), SizeIs(3));
  EXPECT_THAT(messages(macros)[0], HasSubstr("macro \"a\": condition: macro 'b' uses itself: b > a "
                                             "> b"));
  EXPECT_THAT(macros.rules, IsEmpty());
  EXPECT_THAT(macros.macros, IsEmpty());
  EXPECT_THAT(macros.broken, UnorderedElementsAre("a", "b"));
}

TEST(RuleFileErrors, ListsThatDoubleEachOtherEnd) {
  std::string empty = "- list: l0\n  items: []\n", full = "- list: l0\n  items: [x]\n", more;
  for (int i = 1; i < 31; ++i) {
    const std::string before = "l" + std::to_string(i - 1);
    more += "- list: l" + std::to_string(i) + "\n  items: [" + before + ", " + before + "]\n";
  }
  for (const std::string& first : {empty, full}) {
    const RuleSet set = loaded(first + more);
    EXPECT_FALSE(set.errors.empty());
    EXPECT_TRUE(set.lists.contains("l3"));
    EXPECT_FALSE(set.lists.contains("l30"));
  }
}

TEST(RuleFileErrors, WhatIsWrongIsNotTakenForAText) {
  // The list has an error: a rule that names it must not compare with "shells".
  const RuleSet set = loaded(
      "- list: shells\n  items: 3\n- macro: m\n  condition: comm in "
      "(shells)\n- macro: n\n  condition: comm in shells\n" +
      rule("x", "  probe: p\n  condition: m\n") +
      rule("y", "  probe: p\n  condition: comm = shells\n"));
  EXPECT_THAT(set.errors, SizeIs(4));
  EXPECT_THAT(names(set), ElementsAre("y"));
}

// ---- files ----

class RuleFiles : public test::InFolder {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << text;
    return path;
  }
};

TEST_F(RuleFiles, OfAFolderAreReadInOrder) {
  write("20.yml", "- rule: x\n  enabled: false\n  override: {enabled: replace}\n");
  write("10.yaml", rule("x"));
  write("30.txt", "nothing");
  write(".hidden.yaml", "wrong: yes");
  const std::string last = write("last", rule("y"));
  const RuleSet set = load_rules({folder_, last});
  EXPECT_THAT(messages(set), IsEmpty());
  ASSERT_THAT(names(set), ElementsAre("x", "y"));
  EXPECT_FALSE(set.rules[0].enabled);
  EXPECT_EQ(set.rules[0].place.file, folder_ + "/10.yaml");
}

TEST_F(RuleFiles, ThatCannotBeReadAreErrors) {
  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const std::string big = write("big", std::string((1 << 20) + 1, '#'));
  const std::string good = write("good", rule("x"));
  const RuleSet set = load_rules({folder_ + "/none", pipe, big, good, "/dev/null"});
  EXPECT_THAT(names(set), ElementsAre("x"));
  EXPECT_THAT(messages(set), ElementsAre("read " + folder_ + "/none: No such file or directory",
                                         "read " + pipe + ": it is neither a file nor a directory",
                                         "read " + big + ": it has more than 1048576 bytes",
                                         "read /dev/null: it is neither a file nor a directory"));
}

}  // namespace
}  // namespace vmsight::detect_rule_file_test
