// What `override` of an item changes in the rule of its name.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "detect/rule_reader.h"

namespace vmsight::detect {

struct Override {
  std::string key;
  bool appends = false;  // otherwise it replaces
};

/// What can be done to a key.
struct OverrideKey {
  std::string_view key;
  bool can_append = false;
};
const std::vector<OverrideKey>& rule_override_keys();

/// The value of "override", compared with the keys that the item has. What is wrong is reported.
std::vector<Override> read_overrides(YamlKeys& keys, const std::vector<OverrideKey>& known);

/// usage, if it does not fit the rule.
Result<void> apply(const Override& change, const RuleParts& parts, Rule& rule);

/// The rule that a definition has all parts of.
Rule make_rule(std::string name, Place place, RuleParts parts);

}  // namespace vmsight::detect
