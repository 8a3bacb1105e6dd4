// Strings of the guest on their way out. They may hold anything: escape sequences, invalid
// UTF-8, characters that turn the direction of text around.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/utf8.h"

namespace vmsight {

/// Text for a terminal: printable characters as they are; control characters, invalid bytes and
/// characters that reorder or hide text (bidi controls, separators) as `\xNN` or `\u{NNNN}`.
std::string for_terminal(std::string_view text);

/// Columns that text takes on a terminal, after for_terminal(). Uses the process's locale.
std::size_t display_width(std::string_view text);

/// The longest start of the text that is at most `width` columns wide.
std::string_view clip(std::string_view text, std::size_t width);

}  // namespace vmsight
