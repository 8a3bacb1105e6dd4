#include "detect/value.h"

#include <fmt/format.h>
#include <algorithm>
#include <functional>
#include <numeric>

#include "base/utf8.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

template <typename Row>
const Row* find_row(const std::vector<Row>& rows, std::string_view name) {
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const Row& one) { return one.first == name; });
  return row == rows.end() ? nullptr : &*row;
}

std::string show_text(std::string_view text, std::size_t most) {
  return text.size() <= most ? escape_bytes(text) : escape_bytes(text.substr(0, most)) + "...";
}

std::string show_list(const std::vector<std::string>& list, std::size_t most) {
  std::string line;
  for (const std::string& text : list) {
    if (!line.empty()) line += ',';
    if (line.size() >= most) return line + "...";
    line += show_text(text, most - line.size());
  }
  return line;
}

/// How many letters must be put in, taken out or replaced (Levenshtein). Of long names the
/// beginning is compared.
std::size_t distance(std::string_view a, std::string_view b) {
  constexpr std::size_t longest = 64;
  a = a.substr(0, longest);
  b = b.substr(0, longest);
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::optional<FieldType> FieldTable::find(std::string_view name) const {
  const Row* row = find_row(rows_, name);
  return row == nullptr ? std::nullopt : std::optional(row->second);
}

std::vector<std::string> FieldTable::all() const {
  std::vector<std::string> names;
  for (const Row& row : rows_) names.push_back(row.first);
  return names;
}

Value FieldValues::get(std::string_view name) const {
  const Row* row = find_row(rows_, name);
  return row == nullptr ? Value() : row->second;
}

std::string show(const Value& value, const FieldType& type, std::size_t most) {
  const bool is_address = type.kind == FieldType::Kind::address;
  if (const auto* text = std::get_if<std::string>(&value)) return show_text(*text, most);
  if (const auto* list = std::get_if<std::vector<std::string>>(&value)) {
    return show_list(*list, most);
  }
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* number = std::get_if<std::int64_t>(&value)) {
    return is_address ? fmt::format("{:#x}", static_cast<std::uint64_t>(*number))
                      : fmt::format("{}", *number);
  }
  if (const auto* number = std::get_if<std::uint64_t>(&value)) {
    return is_address ? fmt::format("{:#x}", *number) : fmt::format("{}", *number);
  }
  return "<NA>";
}

std::string one_line(std::string_view text) {
  std::string line;
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    const std::string_view one = text.substr(0, step.length);
    const bool is_break = one == "\n" || one == "\r" || one == "\t";
    if (is_break) {
      line += ' ';
    } else {
      line += step.valid && step.code_point >= 0xa0 ? std::string(one) : escape_bytes(one);
    }
    text.remove_prefix(step.length);
  }
  return line;
}

void append_key(std::string& key, const Value& value) {
  constexpr std::size_t longest = 256;
  const auto add_text = [&](std::string_view text) {
    key += fmt::format("{}:", text.size());
    key += text.substr(0, longest);
    if (text.size() > longest) key += fmt::format("#{}", std::hash<std::string_view>()(text));
  };
  key += fmt::format("{};", value.index());
  if (const auto* text = std::get_if<std::string>(&value)) {
    add_text(*text);
  } else if (const auto* list = std::get_if<std::vector<std::string>>(&value)) {
    std::string all;
    for (const std::string& one : *list) append_key(all, one);
    add_text(all);
  } else {
    key += show(value, FieldType{.kind = FieldType::Kind::number});
  }
}

std::vector<std::string> nearest(std::string_view name, std::vector<std::string> known,
                                 std::size_t most) {
  std::vector<std::pair<std::size_t, std::size_t>> order;
  for (std::size_t i = 0; i < known.size(); ++i) order.emplace_back(distance(name, known[i]), i);
  std::sort(order.begin(), order.end());
  std::vector<std::string> first;
  for (std::size_t i = 0; i < std::min(most, order.size()); ++i) {
    first.push_back(std::move(known[order[i].second]));
  }
  return first;
}

}  // namespace vmsight::detect
