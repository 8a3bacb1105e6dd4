#include "base/utf8.h"

#include <fmt/format.h>

namespace vmsight {
namespace {

/// Length, least value and value bits of the sequence that a lead byte begins; length 0 if none.
struct Lead {
  unsigned length;
  std::uint32_t least, bits;
};

Lead classify(unsigned char byte) {
  if (byte < 0x80) return {1, 0, byte};
  if (byte >= 0xc2 && byte < 0xe0) return {2, 0x80, byte & 0x1fu};
  if (byte >= 0xe0 && byte < 0xf0) return {3, 0x800, byte & 0x0fu};
  if (byte >= 0xf0 && byte < 0xf5) return {4, 0x10000, byte & 0x07u};
  return {0, 0, 0};
}

}  // namespace

Utf8Step decode_utf8(std::string_view text) {
  const Lead lead = classify(static_cast<unsigned char>(text.front()));
  if (lead.length == 0 || lead.length > text.size()) return {};
  std::uint32_t value = lead.bits;
  for (unsigned i = 1; i < lead.length; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte & 0xc0) != 0x80) return {};
    value = value << 6 | (byte & 0x3fu);
  }
  const bool surrogate = value >= 0xd800 && value < 0xe000;
  if (value < lead.least || value > 0x10ffff || surrogate) return {};
  return {value, lead.length, true};
}

std::string for_json(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    if (step.valid)
      out += text.substr(0, step.length);
    else
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text.front()));
    text.remove_prefix(step.length);
  }
  return out;
}

}  // namespace vmsight
