#include "host/option_list.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace vmsight {
namespace {

using nlohmann::json;
using Items = std::vector<std::pair<std::string, std::string>>;

constexpr int max_json_depth = 8;

std::string json_scalar(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "on" : "off";
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

void flatten(const json& object, const std::string& prefix, int depth, Items& items) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_structured()) {
      if (depth < max_json_depth) flatten(value, prefix + key + ".", depth + 1, items);
    } else {
      items.emplace_back(prefix + key, json_scalar(value));
    }
  }
}

/// Takes the text up to the next single comma; two commas stand for one.
std::string next_part(std::string_view& rest) {
  std::string part;
  while (!rest.empty()) {
    const char c = rest.front();
    rest.remove_prefix(1);
    if (c == ',') {
      if (rest.empty() || rest.front() != ',') break;
      rest.remove_prefix(1);
    }
    part += c;
  }
  return part;
}

void add_flag(const std::string& part, Items& items) {
  if (part.size() > 2 && part.starts_with("no")) items.emplace_back(part.substr(2), "off");
  items.emplace_back(part, "on");
}

}  // namespace

Result<OptionList> OptionList::parse(std::string_view text, std::string_view implied_key) {
  OptionList list;
  if (text.starts_with('{')) {
    const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) {
      return Error{.code = ErrorCode::bad_data, .message = "read option: malformed JSON"};
    }
    flatten(object, "", 0, list.items_);
    return list;
  }
  for (bool first = true; !text.empty(); first = false) {
    std::string part = next_part(text);
    const auto equals = part.find('=');
    if (equals != std::string::npos) {
      list.items_.emplace_back(part.substr(0, equals), part.substr(equals + 1));
    } else if (first && !implied_key.empty()) {
      list.items_.emplace_back(implied_key, std::move(part));
    } else if (!part.empty()) {
      add_flag(part, list.items_);
    }
  }
  return list;
}

std::optional<std::string_view> OptionList::find(std::string_view key) const {
  for (auto item = items_.rbegin(); item != items_.rend(); ++item) {
    if (item->first == key) return item->second;
  }
  return std::nullopt;
}

bool OptionList::is_on(std::string_view key, bool otherwise) const {
  const auto value = find(key);
  if (!value) return otherwise;
  return *value == "on" || *value == "yes" || *value == "true" || *value == "y";
}

std::optional<std::uint64_t> OptionList::number(std::string_view key) const {
  const auto value = find(key);
  return value ? parse_number(*value) : std::nullopt;
}

std::optional<std::uint64_t> OptionList::size(std::string_view key, std::uint64_t unit) const {
  const auto value = find(key);
  return value ? parse_size(*value, unit) : std::nullopt;
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    text.remove_prefix(2);
    base = 16;
  }
  std::uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value, base);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

std::optional<std::uint64_t> parse_size(std::string_view text, std::uint64_t unit) {
  if (text.empty()) return std::nullopt;
  const bool hexadecimal = text.starts_with("0x") || text.starts_with("0X");
  constexpr std::string_view suffixes = "bkmgtpe";
  const char last = static_cast<char>(text.back() | 0x20);
  const auto suffix = suffixes.find(last);
  const bool is_digit = hexadecimal && (last == 'b' || last == 'e');
  if (suffix != std::string_view::npos && !is_digit) {
    unit = std::uint64_t{1} << (10 * suffix);
    text.remove_suffix(1);
  }
  if (const auto whole = parse_number(text)) {
    std::uint64_t bytes = 0;
    if (__builtin_mul_overflow(*whole, unit, &bytes)) return std::nullopt;
    return bytes;
  }
  double fraction = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, fraction, std::chars_format::fixed);
  const double bytes = fraction * static_cast<double>(unit);
  if (error != std::errc() || stop != end || !(bytes >= 0) || bytes >= 0x1p63) return std::nullopt;
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace vmsight
