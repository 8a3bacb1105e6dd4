#include "detect/rule_override.h"

#include <fmt/format.h>
#include <algorithm>

#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

template <typename T>
void put(std::optional<T> from, T& to) {
  if (from) to = *std::move(from);
}

void append_text(const std::optional<PlacedText>& from, PlacedText& to) {
  if (!from) return;
  to.text += to.text.empty() ? from->text : " " + from->text;
  to.place = from->place;  // what was there before has probably been right
}

template <typename T>
void append_items(const std::optional<std::vector<T>>& from, std::vector<T>& to) {
  if (from) to.insert(to.end(), from->begin(), from->end());
}

void append_tags(const std::optional<std::vector<std::string>>& from,
                 std::vector<std::string>& to) {
  if (!from) return;
  for (const std::string& tag : *from) {
    if (std::find(to.begin(), to.end(), tag) == to.end()) to.push_back(tag);
  }
}

Result<void> append_part(std::string_view key, const RuleParts& parts, Rule& rule) {
  if (key == "condition") append_text(parts.condition, rule.condition);
  if (key == "output") append_text(parts.output, rule.output);
  if (key == "desc" && parts.desc) rule.desc += " " + *parts.desc;
  if (key == "tags") append_tags(parts.tags, rule.tags);
  if (key == "action") append_items(parts.actions, rule.actions);
  if (key == "references") append_items(parts.references, rule.references);
  if (key != "exceptions" || !parts.exceptions) return {};
  return append_exceptions(rule.exceptions, *parts.exceptions);
}

Result<void> replace_exceptions(const RuleParts& parts, Rule& rule) {
  rule.exceptions.clear();
  return append_exceptions(rule.exceptions, parts.exceptions.value_or(std::vector<Exception>()));
}

Result<void> replace_part(std::string_view key, const RuleParts& parts, Rule& rule) {
  if (key == "condition") put(parts.condition, rule.condition);
  if (key == "output") put(parts.output, rule.output);
  if (key == "desc") put(parts.desc, rule.desc);
  if (key == "tags") put(parts.tags, rule.tags);
  if (key == "action") put(parts.actions, rule.actions);
  if (key == "references") put(parts.references, rule.references);
  if (key == "enabled") put(parts.enabled, rule.enabled);
  if (key == "priority") put(parts.priority, rule.priority);
  if (key == "limit") rule.limit = parts.limit;
  if (key == "false_positives") put(parts.false_positives, rule.false_positives);
  if (key == "test") put(parts.test, rule.test);
  if (parts.kind && key == kind_name(*parts.kind)) rule.kind = *parts.kind;
  return key == "exceptions" ? replace_exceptions(parts, rule) : Result<void>();
}

std::optional<Override> read_override(YamlKeys& overrides, const YamlMember& member,
                                      const std::vector<OverrideKey>& known) {
  const auto row = std::find_if(known.begin(), known.end(),
                                [&](const OverrideKey& one) { return one.key == member.key; });
  if (row == known.end()) {
    std::vector<std::string_view> names;
    for (const OverrideKey& one : known) names.push_back(one.key);
    overrides.refuse(member.key, "it cannot be overridden",
                     fmt::format("what can: {}", fmt::join(names, ", ")));
    return std::nullopt;
  }
  const auto how = scalar_text(member.value);
  if (how == "replace") return Override{member.key, false};
  if (how == "append" && row->can_append) return Override{member.key, true};
  overrides.refuse(member.key, how == "append"   ? "it can be replaced, not appended to"
                               : row->can_append ? "append or replace was expected"
                                                 : "replace was expected");
  return std::nullopt;
}

}  // namespace

const std::vector<OverrideKey>& rule_override_keys() {
  static const std::vector<OverrideKey> keys = [] {
    std::vector<OverrideKey> all = {
        {"condition", true},  {"output", true},           {"desc", true},
        {"tags", true},       {"exceptions", true},       {"action", true},
        {"references", true}, {"enabled", false},         {"priority", false},
        {"limit", false},     {"false_positives", false}, {"test", false}};
    for (const std::string_view kind : rule_kinds()) all.push_back({kind, false});
    return all;
  }();
  return keys;
}

std::vector<Override> read_overrides(YamlKeys& keys, const std::vector<OverrideKey>& known) {
  std::vector<Override> made;
  auto overrides = keys.map("override");
  if (!overrides) return made;
  for (const YamlMember& member : overrides->members()) {
    auto one = read_override(*overrides, member, known);
    if (!one) continue;
    if (!keys.has(one->key)) {
      overrides->refuse(one->key, "the item has no such key to override with");
    }
    made.push_back(*std::move(one));
  }
  for (const YamlMember& member : keys.members()) {
    const auto is_named = [&](const YamlMember& one) { return one.key == member.key; };
    const bool can = std::any_of(known.begin(), known.end(),
                                 [&](const OverrideKey& one) { return one.key == member.key; });
    const auto& named = overrides->members();
    if (!can || std::any_of(named.begin(), named.end(), is_named)) continue;
    keys.refuse(member.key, "the item overrides another, and does not say so of this key",
                fmt::format("write override: {{{}: replace}}", member.key));
  }
  return made;
}

Result<void> apply(const Override& change, const RuleParts& parts, Rule& rule) {
  return change.appends ? append_part(change.key, parts, rule)
                        : replace_part(change.key, parts, rule);
}

Rule make_rule(std::string name, Place place, RuleParts parts) {
  Rule rule{.name = std::move(name)};
  rule.place = std::move(place);
  put(std::move(parts.desc), rule.desc);
  put(std::move(parts.enabled), rule.enabled);
  put(std::move(parts.condition), rule.condition);
  put(std::move(parts.output), rule.output);
  put(std::move(parts.priority), rule.priority);
  put(std::move(parts.tags), rule.tags);
  put(std::move(parts.exceptions), rule.exceptions);
  rule.limit = std::move(parts.limit);
  put(std::move(parts.actions), rule.actions);
  put(std::move(parts.references), rule.references);
  put(std::move(parts.false_positives), rule.false_positives);
  put(std::move(parts.test), rule.test);
  put(std::move(parts.kind), rule.kind);
  return rule;
}

}  // namespace vmsight::detect
