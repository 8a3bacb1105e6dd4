// Options of one letter as the tools that verbs are named after take them, where that is not how
// CLI11 takes them: with an argument that may be left out (`-i`, `-i :80`, `-i4`), or after a plus
// (`+L1`). They become long options before the command line is parsed.
#pragma once

#include <CLI/CLI.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/result.h"

namespace vmsight {

struct ShortOption {
  enum class Argument : std::uint8_t {
    none,
    required,  // the rest of the word, or the next one
    optional,  // the same, unless the next one begins with - or +
    attached,  // the rest of the word, which may be empty
  };
  char sign = '-';  // or '+'
  char letter = 0;
  Argument argument = Argument::none;
  std::string_view long_name;  // "--pid"; "" for what changes nothing here
};

/// What an option has that was given without its argument: `-i` becomes "--inet=*".
inline constexpr std::string_view no_argument = "*";

/// An option that may be given several times, each time with one value: words behind it are not its.
inline CLI::Option* one_value_each(CLI::Option* option) {
  return option->expected(1)->allow_extra_args(false)->multi_option_policy(
      CLI::MultiOptionPolicy::TakeAll);
}

/// Replaces words such as "-nPi4" by "--inet=4". What begins with two dashes, or with neither sign,
/// stays; all behind "--" stays. usage for a letter that is not known; `verb` is named then.
Result<void> expand_short_options(std::string_view verb, std::span<const ShortOption> known,
                                  std::vector<std::string>& words);

}  // namespace vmsight
