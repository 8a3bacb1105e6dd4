// Small pieces of text: whole numbers, lists with commas.
#pragma once

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>
#include <vector>

namespace vmsight {

/// The number that all of the text is; nullopt for anything else, also one that does not fit.
template <typename Number>
std::optional<Number> parse_whole(std::string_view text, int base = 10) {
  Number number = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number, base);
  return parsed.ec == std::errc() && parsed.ptr == end ? std::optional(number) : std::nullopt;
}

/// What stands between the separators. One at the end is followed by nothing; an empty text has no
/// parts.
inline std::vector<std::string_view> split_at(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

inline std::vector<std::string_view> split_at_commas(std::string_view text) {
  return split_at(text, ',');
}

}  // namespace vmsight
