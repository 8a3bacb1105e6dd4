#include "detect/yaml_keys.h"

#include <fmt/format.h>
#include <algorithm>

#include "detect/value.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {

std::optional<std::string> scalar_text(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::scalar || node.text.empty()) return std::nullopt;
  return node.text;
}

std::optional<std::vector<std::string>> scalar_texts(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::sequence) return std::nullopt;
  std::vector<std::string> texts;
  for (const YamlNode& item : node.items) {
    auto text = scalar_text(item);
    if (!text) return std::nullopt;
    texts.push_back(*std::move(text));
  }
  return texts;
}

YamlKeys::YamlKeys(const YamlNode& map, std::string within, const YamlReport& report)
    : map_(map), within_(std::move(within)), report_(report) {}

const YamlMember* YamlKeys::find(std::string_view key) const {
  const auto member = std::find_if(map_.members.begin(), map_.members.end(),
                                   [&](const YamlMember& one) { return one.key == key; });
  return member == map_.members.end() ? nullptr : &*member;
}

std::string YamlKeys::full(std::string_view key) const {
  return within_.empty() ? escape_bytes(key) : fmt::format("{}.{}", within_, escape_bytes(key));
}

unsigned YamlKeys::line_of(std::string_view key) const {
  const YamlMember* member = find(key);
  return member == nullptr ? map_.line : member->line;
}

void YamlKeys::refuse(std::string_view key, std::string_view what, std::string hint) const {
  report_(line_of(key), fmt::format("key \"{}\": {}", full(key), what), std::move(hint));
}

void YamlKeys::missing(std::string_view what) const {
  report_(map_.line, fmt::format("it needs {}", what), "");
}

void YamlKeys::refuse_choice(std::string_view key, const std::string& chosen,
                             const std::vector<std::string_view>& names) const {
  refuse(key, fmt::format("\"{}\" is none of {}", escape_bytes(chosen.substr(0, 80)),
                          fmt::join(names, ", ")));
}

const YamlNode* YamlKeys::take(std::string_view key, Need need) {
  if (std::find(asked_.begin(), asked_.end(), key) == asked_.end()) asked_.emplace_back(key);
  const YamlMember* member = find(key);
  if (member == nullptr && need == Need::required) {
    missing(fmt::format("the key \"{}\"", full(key)));
  }
  return member == nullptr ? nullptr : &member->value;
}

std::optional<std::string> YamlKeys::text(std::string_view key, Need need) {
  const YamlNode* node = take(key, need);
  if (node == nullptr) return std::nullopt;
  auto text = scalar_text(*node);
  if (!text) refuse(key, "a text was expected");
  return text;
}

std::optional<bool> YamlKeys::boolean(std::string_view key) {
  const auto given = text(key);
  if (!given) return std::nullopt;
  for (const char* yes : {"true", "True", "yes", "on"}) {
    if (*given == yes) return true;
  }
  for (const char* no : {"false", "False", "no", "off"}) {
    if (*given == no) return false;
  }
  refuse(key, "true or false was expected");
  return std::nullopt;
}

std::optional<std::vector<std::string>> YamlKeys::texts(std::string_view key) {
  const YamlNode* node = take(key);
  if (node == nullptr) return std::nullopt;
  auto texts = scalar_texts(*node);
  if (!texts) refuse(key, "a list of texts was expected");
  return texts;
}

std::optional<std::vector<std::string>> YamlKeys::text_or_texts(std::string_view key, Need need) {
  const YamlNode* node = take(key, need);
  if (node == nullptr) return std::nullopt;
  if (const auto text = scalar_text(*node)) return std::vector{*text};
  auto texts = scalar_texts(*node);
  if (texts && !texts->empty()) return texts;
  refuse(key, "a text, or a list of them, was expected");
  return std::nullopt;
}

std::optional<std::uint64_t> YamlKeys::duration(std::string_view key, Need need, Zero zero) {
  const auto given = text(key, need);
  if (!given) return std::nullopt;
  const auto parsed = parse_duration(*given);
  if (parsed && (*parsed > 0 || zero == Zero::allowed)) return parsed;
  refuse(key, fmt::format("\"{}\" is not a duration", escape_bytes(given->substr(0, 80))),
         "write 100ms, 30s, 5m or 1h");
  return std::nullopt;
}

std::optional<YamlKeys> YamlKeys::map(std::string_view key) {
  const YamlNode* node = take(key);
  if (node == nullptr) return std::nullopt;
  if (node->kind == YamlNode::Kind::map) return YamlKeys(*node, full(key), report_);
  refuse(key, "keys were expected below it");
  return std::nullopt;
}

void YamlKeys::finish() const {
  for (const YamlMember& member : map_.members) {
    if (std::find(asked_.begin(), asked_.end(), member.key) != asked_.end()) continue;
    const auto near = nearest(member.key, asked_, 5);
    refuse(member.key, "it has no meaning here",
           fmt::format("keys here are {}", fmt::join(near, ", ")));
  }
}

}  // namespace vmsight::detect
