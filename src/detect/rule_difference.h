// Whether a rule that was read again says what it said before.
#pragma once

#include "detect/rule_file.h"

namespace vmsight::detect {

/// Wherever they stand in their files. Also the lists and macros that they name must be the same.
bool is_same_rule(const Rule& a, const RuleSet& of_a, const Rule& b, const RuleSet& of_b);

}  // namespace vmsight::detect
