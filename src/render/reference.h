// The records of a state and their fields, for readers: `vmsight help records` and docs/json.md.
#pragma once

#include <string>

namespace vmsight {

/// Markdown, from the tables of state/records.h.
std::string records_reference();

}  // namespace vmsight
