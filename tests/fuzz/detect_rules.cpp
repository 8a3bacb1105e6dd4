// Any text as a file of rules; its first line as a condition, an output and a pattern.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "detect/compiled_rule.h"
#include "detect/glob.h"
#include "detect/sink.h"

namespace {

using namespace vmsight;
using namespace vmsight::detect;
using Kind = FieldType::Kind;

const FieldTable& names() {
  static const FieldTable table({{"comm", {Kind::text}},
                                 {"proc.name", {Kind::text}},
                                 {"pid", {Kind::signed_number, 32}},
                                 {"uid", {Kind::number, 32}},
                                 {"rax", {Kind::untyped}},
                                 {"task", {Kind::address}},
                                 {"traced", {Kind::boolean}},
                                 {"args", {Kind::text_list}}});
  return table;
}

/// Of these, proc.name is absent.
FieldValues values(std::string_view text) {
  const std::string comm(text.substr(0, 15));
  return FieldValues({{"comm", comm},
                      {"pid", std::int64_t{-1}},
                      {"uid", std::uint64_t{33}},
                      {"rax", ~std::uint64_t{0}},
                      {"task", std::uint64_t{0xffff888000000000}},
                      {"traced", true},
                      {"args", std::vector<std::string>{comm, "x"}}});
}

void check_line(const Error& error) {
  for (const std::string& text : {error.message, error.hint}) {
    for (const char c : text) VMSIGHT_CHECK(static_cast<unsigned char>(c) >= 0x20);
  }
}

void try_condition(std::string_view text, const RuleSet& set) {
  const auto condition = Condition::compile(text, set.context(names()));
  if (!condition) return check_line(condition.error());
  Memory memory({.keys = 8, .times = 64});
  for (std::uint64_t now = 0; now < 3; ++now) condition->evaluate(values(text), &memory, now);
  VMSIGHT_CHECK(memory.keys() <= 8);
  // What must hold for the condition to hold holds if it does.
  if (condition->remembers() || !condition->evaluate(values(text))) return;
  for (const ConditionTerm& term : condition->terms()) {
    const auto one = Condition::compile(term.text, set.context(names()));
    VMSIGHT_CHECK(one && one->evaluate(values(text)));
  }
}

void try_output(std::string_view text) {
  const auto output = OutputTemplate::compile(text, names());
  if (!output) return check_line(output.error());
  for (const char c : output->render(values(text))) {
    VMSIGHT_CHECK(static_cast<unsigned char>(c) >= 0x20);
  }
}

void try_rules(const RuleSet& set, std::string_view text) {
  for (const Error& error : set.errors) check_line(error);
  for (const Rule& rule : set.rules) {
    const auto compiled = CompiledRule::compile(rule, set, names());
    if (!compiled) {
      check_line(compiled.error());
      continue;
    }
    Memory memory({.keys = 8, .times = 64});
    compiled->matches(values(text), memory, 1);
    static_cast<void>(compiled->limit_key(values(text)));
    const Alarm alarm = compiled->alarm(values(text), 1);
    for (const auto format : {AlarmFormat::text, AlarmFormat::json, AlarmFormat::ocsf}) {
      VMSIGHT_CHECK(format_alarm(alarm, format, "host").find('\n') == std::string::npos);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::string_view line = std::string_view(text).substr(0, text.find('\n'));
  const RuleSet set = load_rule_texts({{"rules.yaml", text}});
  try_rules(set, text);
  try_condition(line, set);
  try_condition(text, set);
  try_output(line);
  matches_glob(line.substr(0, max_pattern), text);
  static_cast<void>(parse_duration(line));
  return 0;
}
