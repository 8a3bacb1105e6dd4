#include "render/json_writer.h"

#include <fmt/format.h>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "render/escape.h"

namespace vmsight {
namespace {

/// Bytes that stand for themselves in a JSON string.
constexpr auto plain = [] {
  std::array<bool, 256> bytes{};
  for (unsigned c = 0x20; c < 0x7f; ++c) bytes[c] = c != '"' && c != '\\';
  return bytes;
}();

template <typename Number>
void append_number(std::string& text, Number value) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  text.append(digits, static_cast<std::size_t>(end - digits));
}

void append_unit(std::string& text, std::uint32_t unit) {
  constexpr char digits[] = "0123456789abcdef";
  text += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) text += digits[unit >> shift & 15];
}

/// The letter that stands for a control character behind a backslash; 0 if none does.
char short_escape(std::uint32_t c) {
  switch (c) {
    case '"':
    case '\\':
      return static_cast<char>(c);
    case '\b':
      return 'b';
    case '\f':
      return 'f';
    case '\n':
      return 'n';
    case '\r':
      return 'r';
    case '\t':
      return 't';
    default:
      return 0;
  }
}

}  // namespace

void JsonWriter::number(std::uint64_t value) {
  separate();
  append_number(text_, value);
}

void JsonWriter::number(std::int64_t value) {
  separate();
  append_number(text_, value);
}

/// There are few of them.
void JsonWriter::number(double value) { word(nlohmann::json(value).dump()); }

void JsonWriter::word(std::string_view json) {
  separate();
  text_ += json;
}

void JsonWriter::key(std::string_view name) {
  separate();
  text_ += '"';
  text_ += name;
  text_ += "\":";
  follows_ = false;
}

void JsonWriter::text(std::string_view bytes) {
  separate();
  text_ += '"';
  while (!bytes.empty()) {
    std::size_t run = 0;
    while (run < bytes.size() && plain[static_cast<unsigned char>(bytes[run])]) ++run;
    text_ += bytes.substr(0, run);
    bytes.remove_prefix(run);
    if (!bytes.empty()) escape(bytes);
  }
  text_ += '"';
}

/// The first character, which does not stand for itself.
void JsonWriter::escape(std::string_view& bytes) {
  const Utf8Step step = decode_utf8(bytes);
  const std::uint32_t c = step.code_point;
  if (!step.valid) {
    fmt::format_to(std::back_inserter(text_), "\\\\x{:02x}",
                   static_cast<unsigned char>(bytes.front()));
  } else if (const char letter = short_escape(c); letter != 0) {
    text_ += '\\';
    text_ += letter;
  } else if (c > 0xffff) {  // two units of UTF-16
    append_unit(text_, 0xd7c0 + (c >> 10));
    append_unit(text_, 0xdc00 + (c & 0x3ff));
  } else {
    append_unit(text_, c);
  }
  bytes.remove_prefix(step.length);
}

}  // namespace vmsight
