// One entry of the kallsyms name table: a length of one or two bytes, then token numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace vmsight {

struct NameExtent {
  std::size_t start = 0;   // of the token numbers
  std::size_t length = 0;  // how many
};

/// The caller knows that the entry at `at` is whole (skip_name() has passed it).
inline NameExtent name_extent(std::span<const std::byte> bytes, std::size_t at) {
  const auto first = std::to_integer<std::size_t>(bytes[at]);
  if ((first & 0x80) == 0) return {at + 1, first};
  return {at + 2, (first & 0x7f) | std::to_integer<std::size_t>(bytes[at + 1]) << 7};
}

/// The position behind the entry at `at`; nullopt if it would reach past `end`.
inline std::optional<std::size_t> skip_name(std::span<const std::byte> bytes, std::size_t at,
                                            std::size_t end) {
  if (at + 2 > end) return std::nullopt;  // the shortest entry: a length and one token
  const NameExtent name = name_extent(bytes, at);
  const std::size_t next = name.start + name.length;
  return next <= end ? std::optional(next) : std::nullopt;
}

}  // namespace vmsight
