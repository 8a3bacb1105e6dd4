// The fields that rules can name, for readers: `vmsight help rules` and docs/rules.md.
#pragma once

#include <string>

namespace vmsight::detect {

/// Markdown, from what the detectors themselves say.
std::string rules_reference();

}  // namespace vmsight::detect
