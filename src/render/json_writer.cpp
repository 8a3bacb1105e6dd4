#include "render/json_writer.h"

#include <fmt/format.h>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
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

/// How many bytes at the beginning stand for themselves; eight at a time.
std::size_t plain_run(std::string_view bytes) {
  constexpr std::uint64_t ones = 0x0101010101010101, high = ones << 7;
  // Of each byte the high bit, if it is below 0x20, is that character, or is beyond ASCII: the lowest set
  // bit is right, those above it may be carries.
  const auto is_zero = [](std::uint64_t x) { return (x - ones) & ~x & high; };
  std::size_t run = 0;
  for (; run + 8 <= bytes.size(); run += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + run, sizeof word);
    const std::uint64_t control = (word - ones * 0x20) & ~word & high;
    const std::uint64_t special = control | is_zero(word ^ ones * '"') |
                                  is_zero(word ^ ones * '\\') | is_zero(word ^ ones * 0x7f) |
                                  (word & high);
    if (special != 0) return run + static_cast<std::size_t>(std::countr_zero(special)) / 8;
  }
  while (run < bytes.size() && plain[static_cast<unsigned char>(bytes[run])]) ++run;
  return run;
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

char* JsonWriter::room(std::size_t size) {
  if (text_.size() - size_ < size) text_.resize(std::max(2 * text_.size(), size_ + size));
  return text_.data() + size_;
}

void JsonWriter::append(std::string_view text) {
  std::memcpy(room(text.size()), text.data(), text.size());
  size_ += text.size();
}

template <typename Number>
void JsonWriter::append_number(Number value) {
  constexpr std::size_t longest = 24;
  separate();
  char* at = room(longest);
  size_ += static_cast<std::size_t>(std::to_chars(at, at + longest, value).ptr - at);
}

void JsonWriter::append_unit(std::uint32_t unit) {
  constexpr char digits[] = "0123456789abcdef";
  append("\\u");
  for (int shift = 12; shift >= 0; shift -= 4) append(digits[unit >> shift & 15]);
}

void JsonWriter::number(std::uint64_t value) { append_number(value); }

void JsonWriter::number(std::int64_t value) { append_number(value); }

/// There are few of them.
void JsonWriter::number(double value) { word(nlohmann::json(value).dump()); }

void JsonWriter::word(std::string_view json) {
  separate();
  append(json);
}

void JsonWriter::key(std::string_view name) {
  char* at = room(name.size() + 4);
  char* const begin = at;
  if (follows_) *at++ = ',';
  *at++ = '"';
  std::memcpy(at, name.data(), name.size());
  at += name.size();
  *at++ = '"';
  *at++ = ':';
  size_ += static_cast<std::size_t>(at - begin);
  follows_ = false;
}

void JsonWriter::text(std::string_view bytes) {
  separate();
  append('"');
  while (!bytes.empty()) {
    const std::size_t run = plain_run(bytes);
    append(bytes.substr(0, run));
    bytes.remove_prefix(run);
    if (!bytes.empty()) escape(bytes);
  }
  append('"');
}

/// The first character, which does not stand for itself.
void JsonWriter::escape(std::string_view& bytes) {
  const Utf8Step step = decode_utf8(bytes);
  const std::uint32_t c = step.code_point;
  if (!step.valid) {
    append(fmt::format("\\\\x{:02x}", static_cast<unsigned char>(bytes.front())));
  } else if (const char letter = short_escape(c); letter != 0) {
    append('\\');
    append(letter);
  } else if (c > 0xffff) {  // two units of UTF-16
    append_unit(0xd7c0 + (c >> 10));
    append_unit(0xdc00 + (c & 0x3ff));
  } else {
    append_unit(c);
  }
  bytes.remove_prefix(step.length);
}

}  // namespace vmsight
