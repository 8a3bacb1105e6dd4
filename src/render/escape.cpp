#include "render/escape.h"

#include <fmt/format.h>
#include <cwchar>

namespace vmsight {
namespace {

/// Controls of C0 and C1, and the format characters that reorder, hide or break text.
bool misleads(std::uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c || c == 0x180e ||
         (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
         (c >= 0xe0000 && c <= 0xe007f);
}

bool plain_ascii(std::string_view text) {
  for (unsigned char c : text) {
    if (c < 0x20 || c >= 0x7f) return false;
  }
  return true;
}

std::size_t width_of(std::uint32_t code_point) {
  if (code_point < 0x80) return 1;
  const int width = ::wcwidth(static_cast<wchar_t>(code_point));
  return width < 0 ? 1 : static_cast<std::size_t>(width);
}

}  // namespace

std::string for_terminal(std::string_view text) {
  if (plain_ascii(text)) return std::string(text);
  std::string out;
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    if (!step.valid || step.code_point < 0x80) {
      const auto byte = static_cast<unsigned char>(text.front());
      if (step.valid && !misleads(byte))
        out += text.front();
      else
        out += fmt::format("\\x{:02x}", byte);
    } else if (misleads(step.code_point)) {
      out += fmt::format("\\u{{{:04x}}}", step.code_point);
    } else {
      out += text.substr(0, step.length);
    }
    text.remove_prefix(step.length);
  }
  return out;
}

std::size_t display_width(std::string_view text) {
  if (plain_ascii(text)) return text.size();
  std::size_t width = 0;
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    width += step.valid ? width_of(step.code_point) : 1;
    text.remove_prefix(step.length);
  }
  return width;
}

std::string_view clip(std::string_view text, std::size_t width) {
  std::size_t taken = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const Utf8Step step = decode_utf8(rest);
    const std::size_t columns = step.valid ? width_of(step.code_point) : 1;
    if (columns > width) break;
    width -= columns;
    taken += step.length;
    rest.remove_prefix(step.length);
  }
  return text.substr(0, taken);
}

}  // namespace vmsight
