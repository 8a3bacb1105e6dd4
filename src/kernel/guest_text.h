// Guest bytes as ASCII that no terminal and no JSON library stumbles over.
#pragma once

#include <fmt/format.h>
#include <string>
#include <string_view>

namespace vmsight {

/// Control bytes and bytes beyond ASCII become \xNN; `keep` are control bytes to leave alone.
inline std::string escape_bytes(std::string_view bytes, std::string_view keep = "") {
  std::string text;
  text.reserve(bytes.size());
  for (const char byte : bytes) {
    const bool printable = byte >= 0x20 && byte < 0x7f;
    if (printable || keep.find(byte) != std::string_view::npos) {
      text += byte;
    } else {
      text += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
    }
  }
  return text;
}

inline std::string escape_lines(std::string_view bytes) { return escape_bytes(bytes, "\n"); }

/// As a C string literal, with its quotes.
inline std::string quote_bytes(std::string_view bytes) {
  std::string text = "\"";
  for (const char byte : bytes) {
    switch (byte) {
      case '"':
        text += "\\\"";
        break;
      case '\\':
        text += "\\\\";
        break;
      case '\n':
        text += "\\n";
        break;
      case '\t':
        text += "\\t";
        break;
      default:
        text += escape_bytes({&byte, 1});
        break;
    }
  }
  return text + '"';
}

}  // namespace vmsight
