// Files of rules: YAML, a sequence of lists, macros and rules, as Falco's are.
//
//   - list: shells                    - rule: shell of a server
//     items: [bash, sh, dash]           desc: ...
//   - macro: is_shell                   probe: kprobe:begin_new_exec
//     condition: comm in (shells)       condition: is_shell and uid == 33
//                                       output: "%comm was started"
//   - rule: shell of a server           priority: warning
//     condition: and not comm == sh
//     override: {condition: append}
//
// A rule has rule, desc, output, priority and one kind: heartbeat, progress, probe (with
// `returns`), state or integrity; it may have condition, enabled, tags, exceptions, limit,
// action, references, false_positives, test. A later item, also of a later file, may override
// those keys of an earlier one: `replace` all, `append` to condition, output, desc, tags,
// exceptions, action, references; the items of a list and the condition of a macro.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "detect/condition.h"
#include "detect/rule.h"

namespace vmsight::detect {

/// What could be used, and everything that could not: each error is one line that begins with
/// "FILE:LINE: ", or with "read FILE: " if all of it could not be read, and a hint. A rule with an error is not among the rules; an override with an
/// error leaves the rule as it was.
struct RuleSet {
  std::vector<Rule> rules;  // in the order of the files; also those that are not enabled
  Lists lists;              // with lists within them in their places
  Macros macros;
  BrokenNames broken;  // lists and macros with errors: what names them is wrong, too
  std::vector<Error> errors;

  ConditionContext context(const FieldNames& names) const {
    return {&names, &lists, &macros, &broken};
  }
};

struct RuleFileBounds {
  static constexpr std::size_t file_size = 1 << 20;  // bytes
  static constexpr std::size_t files = 1024;
  static constexpr std::size_t rules = 4096, macros = 4096, lists = 4096;
  static constexpr std::size_t errors = 1000;
};

/// Reads files in their order. A directory stands for its *.yaml and *.yml files by name, those
/// with a leading dot left out.
RuleSet load_rules(const std::vector<std::string>& paths);

/// The same of a text; `name` stands for the file in messages.
struct RuleText {
  std::string name, text;
};
RuleSet load_rule_texts(const std::vector<RuleText>& texts);

}  // namespace vmsight::detect
