// What an item of a file says of a rule.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "detect/rule.h"
#include "detect/yaml_keys.h"

namespace vmsight::detect {

/// A key that the item does not have is absent.
struct RuleParts {
  std::optional<std::string> desc, false_positives, test;
  std::optional<bool> enabled;
  std::optional<PlacedText> condition, output;
  std::optional<Priority> priority;
  std::optional<std::vector<std::string>> tags, references;
  std::optional<std::vector<Exception>> exceptions;  // of an override: perhaps without fields
  std::optional<AlarmLimit> limit;
  std::optional<std::vector<Action>> actions;
  std::optional<RuleKind> kind;
};

enum class RuleItem : std::uint8_t { definition, addition };
/// Takes all keys of a rule but "rule" and "override". An addition may leave out what a definition
/// needs.
RuleParts read_rule_parts(YamlKeys& keys, const std::string& file, RuleItem item);

/// The exceptions of the key. Those of an addition may leave out fields and comps.
std::optional<std::vector<Exception>> read_exceptions(YamlKeys& keys, const std::string& file,
                                                      RuleItem item);
/// Adds to each exception of the same name its values, and those of new names. usage: "exception
/// "x": WHY".
Result<void> append_exceptions(std::vector<Exception>& exceptions,
                               const std::vector<Exception>& added);

}  // namespace vmsight::detect
