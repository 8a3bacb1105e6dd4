#include "cli/watch_rules.h"

#include <filesystem>

#include "render/escape.h"
#include "render/json.h"

namespace vmsight {
namespace {

using detect::Rule;
using detect::RuleSet;
using detect::WatchedRules;

constexpr const char* site_rules = "/etc/vmsight/rules.d";

/// Rules that ship, beside the program: ../share/vmsight/rules of its prefix, or the sources' rules/.
std::string shipped_rules() {
  std::error_code failed;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", failed);
  for (const auto& place : {self.parent_path().parent_path() / "share/vmsight/rules",
                            self.parent_path().parent_path() / "rules"}) {
    if (std::filesystem::is_directory(place, failed)) return place.string();
  }
  return "";
}

bool is_there(const std::string& path) {
  std::error_code failed;
  return std::filesystem::exists(path, failed);
}

Json rule_json(const Rule& rule) {
  return {{"rule", for_json(rule.name)},
          {"desc", for_json(rule.desc)},
          {"kind", kind_name(rule.kind)},
          {"priority", detect::to_string(rule.priority)},
          {"enabled", rule.enabled},
          {"condition", for_json(rule.condition.text)},
          {"output", for_json(rule.output.text)},
          {"tags", rule.tags},
          {"references", rule.references},
          {"false_positives", for_json(rule.false_positives)},
          {"test", for_json(rule.test)},
          {"place", detect::to_string(rule.place)}};
}

}  // namespace

/// Files and directories are read; other words are names of rules that ship.
Result<WatchedRules> choose_rules(const RuleChoice& choice) {
  std::vector<std::string> paths, names;
  for (const std::string& wanted : choice.wanted)
    (wanted.find('/') != std::string::npos || is_there(wanted) ? paths : names).push_back(wanted);
  if (paths.empty()) {
    if (const std::string shipped = shipped_rules(); !shipped.empty()) paths.push_back(shipped);
    if (is_there(site_rules)) paths.emplace_back(site_rules);
  }
  WatchedRules chosen{.set = std::make_shared<const RuleSet>(detect::load_rules(paths))};
  VMSIGHT_TRY(chosen.rules,
              select(chosen.set->rules,
                     {.names = names, .tags = choice.tags, .disabled = choice.disabled}));
  return chosen;
}

Result<WatchedRules> choose_rules_again(const RuleChoice& choice) {
  VMSIGHT_TRY(WatchedRules chosen, choose_rules(choice));
  std::string wrong;
  const auto add = [&](const Error& error) {
    wrong += wrong.empty() ? "" : "; ";
    wrong += error.message;
  };
  for (const Error& error : chosen.set->errors) add(error);
  for (const Rule& rule : chosen.rules) {
    if (auto checked = detect::check_rule(rule, *chosen.set); !checked) add(checked.error());
  }
  if (!wrong.empty()) return Error{.code = ErrorCode::bad_data, .message = std::move(wrong)};
  return chosen;
}

Result<void> check_rules(Session& session, const std::string& path) {
  RuleSet set = detect::load_rules({path});
  for (const Rule& rule : set.rules) {
    auto checked = detect::check_rule(rule, set);
    if (!checked) set.errors.push_back(std::move(checked).error());
  }
  for (const Error& error : set.errors) session.out.print("{}\n", for_terminal(error.message));
  if (set.errors.empty()) {
    session.out.print("{} rules: all is well\n", set.rules.size());
    return {};
  }
  return Error{.code = ErrorCode::bad_data,
               .message = fmt::format("{}: {} errors", path, set.errors.size())};
}

void list_rules(Session& session, const WatchedRules& rules) {
  for (const Rule& rule : rules.rules) {
    if (session.common.json) {
      session.out.print("{}\n", dump(rule_json(rule)));
      continue;
    }
    session.out.print("{:<32} {:<13} {:<10} {}\n", for_terminal(rule.name),
                      detect::to_string(rule.priority), kind_name(rule.kind),
                      for_terminal(rule.desc));
  }
}

Result<void> explain_rule(Session& session, const RuleSet& set, const std::string& name) {
  const auto rule = std::find_if(set.rules.begin(), set.rules.end(),
                                 [&](const Rule& one) { return one.name == name; });
  if (rule == set.rules.end()) {
    return Error{.code = ErrorCode::not_found,
                 .message = fmt::format("no rule is called \"{}\"", name),
                 .hint = "`vmsight watch --list` lists them"};
  }
  const Json all = rule_json(*rule);
  if (session.common.json) {
    session.out.print("{}\n", dump(all));
    return {};
  }
  for (const auto& [key, value] : all.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    session.out.print("{:<16} {}\n", key, for_terminal(text));
  }
  VMSIGHT_TRY(const auto names, field_names(*rule));
  session.out.print("{:<16} {}\n", "fields", fmt::join(names->all(), " "));
  return {};
}

}  // namespace vmsight
