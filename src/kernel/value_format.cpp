// A tree of values as text, in the form of a C initializer, and as JSON.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kernel/guest_text.h"
#include "kernel/type_print.h"

namespace vmsight {
namespace {

using Json = nlohmann::ordered_json;
using Kind = TypedValue::Kind;

constexpr std::size_t max_line = 76;        // longer structures get a line a member
constexpr std::size_t max_json = 1u << 17;  // values, once repeats are written out

bool has_children(const TypedValue& value) {
  return value.kind == Kind::structure || value.kind == Kind::array;
}

std::string leaf_text(const TypedValue& value) {
  if (value.kind == Kind::string) return quote_bytes(value.text);
  if (value.kind == Kind::unreadable) return fmt::format("/* {} */", value.text);
  return value.text;
}

/// ".pid = " or "[2 ... 5] = "; nothing for a single element.
std::string label(const TypedValue& parent, const TypedValue& child) {
  if (parent.kind == Kind::structure) {
    return child.name.empty() ? "" : fmt::format(".{} = ", child.name);
  }
  if (child.kind == Kind::omitted && child.text == "...") return "";
  return child.first == child.last ? fmt::format("[{}] = ", child.first)
                                   : fmt::format("[{} ... {}] = ", child.first, child.last);
}

/// The value on one line; nullopt if that takes more than `room` characters.
std::optional<std::string> one_line(const TypedValue& value, std::size_t room) {
  if (!has_children(value)) {
    std::string text = leaf_text(value);
    return text.size() <= room ? std::optional(std::move(text)) : std::nullopt;
  }
  if (value.children.empty()) return "{}";
  std::string text = "{ ";
  for (const TypedValue& child : value.children) {
    if (text.size() > room) return std::nullopt;
    const bool single = value.kind == Kind::array && child.first == child.last;
    if (text.size() > 2) text += ", ";
    if (!single) text += label(value, child);
    const auto inner = one_line(child, room);
    if (!inner) return std::nullopt;
    text += *inner;
  }
  text += " }";
  return text.size() <= room ? std::optional(std::move(text)) : std::nullopt;
}

void append_value(std::string& out, const TypedValue& value, std::size_t indent) {
  if (!has_children(value)) {
    out += leaf_text(value);
    return;
  }
  if (indent != 0 || value.kind == Kind::array) {
    if (const auto line = one_line(value, max_line)) {
      out += *line;
      return;
    }
  }
  out += "{\n";
  for (const TypedValue& child : value.children) {
    out.append(indent + 4, ' ');
    out += label(value, child);
    append_value(out, child, indent + 4);
    out += ",\n";
  }
  out.append(indent, ' ');
  out += '}';
}

Json value_json(const TypedValue& value, std::size_t& budget);

Json array_json(const TypedValue& value, std::size_t& budget) {
  Json list = Json::array();
  for (const TypedValue& child : value.children) {
    for (std::uint64_t i = child.first; i <= child.last && budget != 0; ++i) {
      list.push_back(value_json(child, budget));
    }
  }
  if (budget == 0) list.push_back("...");
  return list;
}

Json value_json(const TypedValue& value, std::size_t& budget) {
  if (budget == 0) return "...";
  --budget;
  switch (value.kind) {
    case Kind::signed_number:
      return static_cast<std::int64_t>(value.number);
    case Kind::unsigned_number:
      return value.number;
    case Kind::boolean:
      return value.number != 0;
    case Kind::string:
      return escape_bytes(value.text, "\n\t\r");
    case Kind::unreadable:
      return nullptr;
    case Kind::array:
      return array_json(value, budget);
    case Kind::structure: {
      Json object = Json::object();
      for (const TypedValue& child : value.children) {
        object[child.name] = value_json(child, budget);
      }
      return object;
    }
    default:
      return value.text;
  }
}

}  // namespace

std::string to_text(const Printed& printed) {
  std::string out = printed.type;
  if (printed.address) out += fmt::format(" @ {:#x}", printed.address->raw());
  out += " = ";
  append_value(out, printed.value, 0);
  return out + "\n";
}

nlohmann::ordered_json to_json(const Printed& printed) {
  std::size_t budget = max_json;
  Json json;
  json["schema"] = "vmsight.print/1";
  json["type"] = printed.type;
  json["address"] = printed.address ? Json(fmt::format("{:#x}", printed.address->raw())) : Json();
  json["value"] = value_json(printed.value, budget);
  return json;
}

}  // namespace vmsight
