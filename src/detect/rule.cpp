#include "detect/rule.h"

#include <fmt/format.h>
#include <algorithm>
#include <array>

#include "base/text.h"
#include "detect/value.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

constexpr std::array<std::string_view, 8> priorities = {
    "Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug"};

std::string lower(std::string_view text) {
  std::string made(text);
  for (char& c : made) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return made;
}

bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

bool has_tag_of(const Rule& rule, const std::vector<std::string>& tags) {
  return std::any_of(rule.tags.begin(), rule.tags.end(),
                     [&](const std::string& tag) { return contains(tags, tag); });
}

bool is_chosen(const Rule& rule, const Selection& selection) {
  const auto& off = selection.disabled;
  if (contains(off, rule.name) || has_tag_of(rule, off)) return false;
  if (contains(selection.names, rule.name)) return true;
  const bool by_default = selection.names.empty() && selection.tags.empty();
  return rule.enabled && (by_default || has_tag_of(rule, selection.tags));
}

Error no_such(std::string_view what, const std::string& name, std::vector<std::string> known) {
  Error error{.code = ErrorCode::not_found,
              .message = fmt::format("no rule has the {} \"{}\"", what, escape_bytes(name))};
  const auto near = nearest(name, std::move(known));
  if (!near.empty()) {
    error.hint = escape_bytes(fmt::format("there are: {}", fmt::join(near, ", ")));
  }
  return error;
}

Result<void> check(const Selection& selection, const std::vector<Rule>& rules) {
  std::vector<std::string> names, tags;
  for (const Rule& rule : rules) {
    names.push_back(rule.name);
    tags.insert(tags.end(), rule.tags.begin(), rule.tags.end());
  }
  std::sort(tags.begin(), tags.end());
  tags.erase(std::unique(tags.begin(), tags.end()), tags.end());
  for (const std::string& name : selection.names) {
    if (!contains(names, name)) return no_such("name", name, names);
  }
  for (const std::string& tag : selection.tags) {
    if (!contains(tags, tag)) return no_such("tag", tag, tags);
  }
  for (const std::string& off : selection.disabled) {
    if (!contains(names, off) && !contains(tags, off)) return no_such("name or tag", off, names);
  }
  return {};
}

}  // namespace

std::string to_string(const Place& place) {
  return fmt::format("{}:{}", escape_bytes(place.file), place.line);
}

std::string_view to_string(Priority priority) {
  return priorities.at(static_cast<std::size_t>(priority));
}

std::optional<Priority> parse_priority(std::string_view text) {
  const std::string wanted = lower(text);
  if (wanted == "info") return Priority::informational;
  for (std::size_t i = 0; i < priorities.size(); ++i) {
    if (wanted == lower(priorities[i])) return static_cast<Priority>(i);
  }
  return std::nullopt;
}

std::span<const std::string_view> rule_kinds() {
  static constexpr std::array<std::string_view, std::variant_size_v<RuleKind>> names = {
      "heartbeat", "progress", "probe", "state", "integrity", "loop"};
  return names;
}

std::string_view kind_name(const RuleKind& kind) { return rule_kinds()[kind.index()]; }

std::vector<std::string> probe_sites(const RuleKind& kind) {
  if (const auto* probe = std::get_if<ProbeRule>(&kind)) return probe->probes;
  if (const auto* heartbeat = std::get_if<Heartbeat>(&kind)) return heartbeat->probes;
  const auto* loop = std::get_if<Loop>(&kind);
  if (loop == nullptr) return {};
  std::vector<std::string> sites{loop->entry, loop->exit};
  if (!loop->body.empty()) sites.push_back(loop->body);
  return sites;
}

std::string_view to_string(Heartbeat::Per per) {
  return per == Heartbeat::Per::vm ? "vm" : "process";
}

std::string_view to_string(Progress::Of of) {
  constexpr std::array<std::string_view, 6> names = {"process", "kernel-thread", "cpu",
                                                     "task",    "runqueue",      "guest"};
  return names.at(static_cast<std::size_t>(of));
}

std::string_view to_string(StateRule::When when) {
  constexpr std::array<std::string_view, 4> names = {"present", "appeared", "gone", "changed"};
  return names.at(static_cast<std::size_t>(when));
}

std::string to_string(const Action& action) {
  constexpr std::array<std::string_view, 5> names = {"case", "pause", "snapshot", "deny", "run "};
  return std::string(names.at(static_cast<std::size_t>(action.kind))) +
         (action.with_core ? " core" : "") + action.command;
}

std::string about(const Rule& rule, const Place& place) {
  return fmt::format("{}: rule \"{}\": ", to_string(place), escape_bytes(rule.name));
}

std::optional<std::uint64_t> parse_duration(std::string_view text) {
  constexpr std::pair<std::string_view, std::uint64_t> units[] = {
      {"ns", 1},
      {"us", 1'000},
      {"ms", 1'000'000},
      {"s", 1'000'000'000},
      {"m", 60'000'000'000},
      {"h", 3'600'000'000'000},
      {"d", 86'400'000'000'000},
  };
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto number = parse_whole<std::uint64_t>(text.substr(0, digits));
  for (const auto& [unit, length] : units) {
    if (text.substr(digits) != unit) continue;
    if (!number || *number > ~0ULL / length) return std::nullopt;
    return *number * length;
  }
  return std::nullopt;
}

Result<std::vector<Rule>> select(std::vector<Rule> rules, const Selection& selection) {
  VMSIGHT_TRY_VOID(check(selection, rules));
  std::erase_if(rules, [&](const Rule& rule) { return !is_chosen(rule, selection); });
  return rules;
}

}  // namespace vmsight::detect
