// Text that claims to be UTF-8, character by character.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace vmsight {

/// One step through text that claims to be UTF-8.
struct Utf8Step {
  std::uint32_t code_point = 0;
  std::size_t length = 1;  // bytes taken, at least 1
  bool valid = false;      // false: `length` is 1 and the byte is not part of a valid sequence
};
/// Decodes the first character of a non-empty text. Overlong forms, surrogates and values above
/// U+10FFFF are invalid (RFC 3629).
Utf8Step decode_utf8(std::string_view text);

/// Valid UTF-8 for a JSON string: bytes that are not UTF-8 become `\xNN`.
std::string for_json(std::string_view text);

}  // namespace vmsight
