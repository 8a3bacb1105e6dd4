#include "detect/glob.h"

#include <optional>

namespace vmsight::detect {
namespace {

/// A part of a pattern that stands for one byte.
struct Single {
  std::size_t length = 1;  // of the pattern
  bool matches = false;
};

/// [...] at the beginning of the pattern; nullopt if it is not closed.
std::optional<Single> match_bracket(std::string_view pattern, unsigned char byte) {
  std::size_t at = 1;
  const bool negated = at < pattern.size() && (pattern[at] == '!' || pattern[at] == '^');
  if (negated) ++at;
  bool found = false;
  for (bool first = true;; first = false) {
    if (at >= pattern.size()) return std::nullopt;
    if (pattern[at] == ']' && !first) break;
    const auto low = static_cast<unsigned char>(pattern[at]);
    auto high = low;
    if (at + 2 < pattern.size() && pattern[at + 1] == '-' && pattern[at + 2] != ']') {
      high = static_cast<unsigned char>(pattern[at + 2]);
      at += 2;
    }
    found = found || (low <= byte && byte <= high);
    ++at;
  }
  return Single{at + 1, found != negated};
}

Single match_single(std::string_view pattern, char byte) {
  switch (pattern[0]) {
    case '?':
      return {1, true};
    case '\\':
      if (pattern.size() > 1) return {2, pattern[1] == byte};
      break;
    case '[':
      if (const auto bracket = match_bracket(pattern, static_cast<unsigned char>(byte))) {
        return *bracket;
      }
      break;
    default:
      break;
  }
  return {1, pattern[0] == byte};
}

}  // namespace

bool matches_glob(std::string_view pattern, std::string_view text) {
  std::size_t in_pattern = 0, in_text = 0;
  // Behind the last star, and where in the text what follows it was looked for last. Only the last
  // star can have to take more: whatever stood before it has matched.
  std::optional<std::size_t> star;
  std::size_t star_text = 0;
  while (in_text < text.size()) {
    if (in_pattern < pattern.size() && pattern[in_pattern] == '*') {
      star = ++in_pattern;
      star_text = in_text;
      continue;
    }
    const Single one = in_pattern < pattern.size()
                           ? match_single(pattern.substr(in_pattern), text[in_text])
                           : Single{};
    if (one.matches) {
      in_pattern += one.length;
      ++in_text;
    } else if (star) {
      in_pattern = *star;
      in_text = ++star_text;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', in_pattern) == pattern.npos;
}

}  // namespace vmsight::detect
