// Completion for shells: the words that may stand next.
#pragma once

#include <span>
#include <string_view>

#include "cli/verb.h"

namespace vmsight {

/// `vmsight --complete WORD...`: the words typed so far behind `vmsight`, the last of them not
/// finished (it may be empty). Prints candidates, one a line, a tab and a description behind each.
void complete(Output& out, std::span<const std::string_view> words);

}  // namespace vmsight
