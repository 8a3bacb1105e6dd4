#include "detect/output_template.h"

#include <fmt/format.h>
#include <algorithm>

#include "detect/comparison.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

bool is_name_part(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.';
}

/// The name at the beginning of the text, without the dots that end it; with an index in brackets.
std::size_t name_length(std::string_view text) {
  std::size_t length = 0;
  while (length < text.size() && is_name_part(text[length])) ++length;
  while (length > 0 && text[length - 1] == '.') --length;
  if (length == 0 || length == text.size() || text[length] != '[') return length;
  const std::size_t close = text.find(']', length);
  return close == text.npos ? length : close + 1;
}

/// A field after its '%', which has been taken.
struct FieldName {
  std::string_view name;
  std::size_t length = 0;  // with its braces
};
FieldName field_name(std::string_view text) {
  if (!text.starts_with('{')) {
    const std::size_t length = name_length(text);
    return {text.substr(0, length), length};
  }
  const std::size_t close = text.find('}');
  if (close == text.npos) return {};
  return {text.substr(1, close - 1), close + 1};
}

Error wrong_output(std::string_view text, std::size_t at, std::string_view why,
                   std::string hint = "") {
  return {.code = ErrorCode::usage,
          .message = fmt::format("output: {}, at character {} (\"{}\")", why, at + 1,
                                 escape_bytes(text.substr(at, 20))),
          .hint = std::move(hint)};
}

std::string_view trimmed(std::string_view text) {
  const std::size_t last = text.find_last_not_of(" \t\r\n");
  return text.substr(0, last == text.npos ? 0 : last + 1);
}

}  // namespace

void OutputTemplate::add_text(std::string_view text) {
  if (text.empty()) return;
  if (pieces_.empty() || pieces_.back().is_field) pieces_.emplace_back();
  pieces_.back().text += one_line(text);
}

Result<OutputTemplate> OutputTemplate::compile(std::string_view text, const FieldNames& names) {
  OutputTemplate made;
  text = trimmed(text);
  if (text.size() > max_text) {
    return wrong_output(text, 0, fmt::format("it has more than {} bytes", max_text));
  }
  std::size_t at = 0, fields = 0;
  while (at < text.size()) {
    const std::size_t percent = std::min(text.find('%', at), text.size());
    made.add_text(text.substr(at, percent - at));
    at = percent + 1;
    if (percent == text.size()) break;
    if (text.substr(at).starts_with('%')) {
      made.add_text("%");
      ++at;
      continue;
    }
    const FieldName field = field_name(text.substr(at));
    if (field.name.empty()) {
      return wrong_output(text, percent, "a field was expected; a percent sign is written %%");
    }
    auto type = type_of(field.name, &names);
    if (!type) return wrong_output(text, percent, type.error().message, type.error().hint);
    if (++fields > max_fields) {
      return wrong_output(text, percent, fmt::format("it has more than {} fields", max_fields));
    }
    made.pieces_.push_back({std::string(field.name), true, *type});
    at += field.length;
  }
  return made;
}

std::string OutputTemplate::render(const Fields& fields) const {
  std::string line;
  for (const Piece& piece : pieces_) {
    line += piece.is_field ? show(fields.get(piece.text), piece.type) : piece.text;
  }
  return line;
}

std::vector<OutputTemplate::Named> OutputTemplate::fields() const {
  std::vector<Named> named;
  for (const Piece& piece : pieces_) {
    const auto same = [&](const Named& one) { return one.name == piece.text; };
    if (!piece.is_field || std::any_of(named.begin(), named.end(), same)) continue;
    named.push_back({piece.text, piece.type});
  }
  return named;
}

}  // namespace vmsight::detect
