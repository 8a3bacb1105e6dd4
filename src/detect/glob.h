// Patterns of file names, matched byte by byte.
#pragma once

#include <string_view>

namespace vmsight::detect {

inline constexpr std::size_t max_pattern = 256;  // bytes

/// * ? [a-z] [!a-z] [^a-z] and \, as fnmatch(3) without flags has them, in no locale: the texts are
/// anybody's. The time is at most the product of the lengths. A bracket that is not closed stands
/// for itself.
bool matches_glob(std::string_view pattern, std::string_view text);

}  // namespace vmsight::detect
