// Filters as users write them: "pid == 12 && filename != \"/dev/null\"".
//
//   either     := both { '||' both }
//   both       := term { '&&' term }
//   term       := '!' term | '(' either ')' | name compare value
//   compare    := '==' | '!=' | '<' | '<=' | '>' | '>='
//   value      := number | 'text' | "text" | word
//
// A number is compared as its type says. One that the type cannot have is an error, but where it is asked for
// bits: `flags == 0xffffffff` of an int, `uid == -1` of an unsigned. What has no type is signed if the
// number is negative, or if it is asked whether it is more or less than 0.
#pragma once

#include <functional>
#include <string_view>

#include "probe/engine.h"

namespace vmsight {

/// What a name in a filter stands for.
struct FilterName {
  FilterTerm term;       // field, index, bits, is_signed
  bool is_text = false;  // compared with a text
  bool is_typed = true;  // false: whether it has a sign nobody knows
};
/// Names of the probe's own; nullopt for one it does not know.
using FilterNames = std::function<std::optional<FilterName>(std::string_view name)>;

/// pid, tgid, comm and cpu are always known. usage, with what is wrong and where.
Result<ProbeFilter> parse_filter(std::string_view text, const FilterNames& names);

}  // namespace vmsight
