// A rule, compiled for the fields that its detector has: what a detector runs.
//
//   auto rule = CompiledRule::compile(rules.rules[i], rules, names);
//   if (rule->matches(fields, memory, monotonic_ns()))
//     alarms = limiter.add(rule->alarm(fields, wall_clock_ns), rule->limit_key(fields),
//                          rule->limit_every_ns(), monotonic_ns());
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "detect/alarm.h"
#include "detect/condition.h"
#include "detect/output_template.h"
#include "detect/rule_file.h"

namespace vmsight::detect {

class CompiledRule {
 public:
  /// Every rule has the field `vm`, the name of the VM, besides. usage: "FILE:LINE: rule "x": WHY" of the
  /// first thing that is wrong.
  static Result<CompiledRule> compile(Rule rule, const RuleSet& set, const FieldNames& names,
                                      std::string vm = "");

  const Rule& rule() const { return rule_; }
  const Condition& condition() const { return condition_; }

  /// The condition holds, and none of the exceptions. What is excepted is not counted by count().
  /// `memory` is this rule's and this VM's alone.
  bool matches(const Fields& fields, Memory& memory, std::uint64_t now_ns) const;

  /// With the values of all fields that the rule names. The caller may add evidence.
  Alarm alarm(const Fields& fields, std::uint64_t time_ns) const;

  /// What AlarmLimiter takes.
  std::string limit_key(const Fields& fields) const;
  std::uint64_t limit_every_ns() const { return rule_.limit ? rule_.limit->every_ns : 0; }

  /// Fields that the rule names anywhere, each once: all that has to be read for it.
  const std::vector<OutputTemplate::Named>& fields() const { return fields_; }

 private:
  CompiledRule() = default;
  Result<void> gather_fields(const FieldNames& names);

  Rule rule_;
  std::string vm_;
  Condition condition_, exceptions_;
  OutputTemplate output_;
  std::vector<OutputTemplate::Named> fields_;
};

}  // namespace vmsight::detect
