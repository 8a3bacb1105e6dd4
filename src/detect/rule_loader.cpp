#include "detect/rule_loader.h"

#include <fmt/format.h>
#include <algorithm>

#include "kernel/guest_text.h"
#include "vmsight/probe.h"

namespace vmsight::detect {
namespace {

constexpr std::string_view item_keys[] = {"rule", "macro", "list"};
constexpr std::size_t longest_name = 256;

bool is_identifier(std::string_view name) {
  const auto is_part = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  return !name.empty() && !(name[0] >= '0' && name[0] <= '9') &&
         std::all_of(name.begin(), name.end(), is_part) && !is_reserved_word(name);
}

/// What stands in a condition without quotes.
bool is_list_name(std::string_view name) {
  return name.find_first_of("()\"',=<>!&| \t\r\n") == name.npos && !is_reserved_word(name);
}

std::string wrong_name(std::string_view what, std::string_view name) {
  if (name.size() > longest_name) return fmt::format("a name has at most {} bytes", longest_name);
  if (what == "macro" && !is_identifier(name)) {
    return "the name of a macro has letters, digits and _, and is no word of the language";
  }
  if (what == "list" && !is_list_name(name)) {
    return "the name of a list has no blanks, quotes, parentheses or operators, and is no word of "
           "the language";
  }
  return "";
}

std::string hint_of_item(const YamlNode& node) {
  for (const YamlMember& member : node.members) {
    if (member.key.starts_with("required_")) return "it is Falco's: leave it out";
  }
  return "write `- rule: NAME`, `- macro: NAME` or `- list: NAME`, one of them in each item";
}

/// A call can be refused only before any of it was done: at the entry of a function of the kernel.
Result<void> check_denial(const Rule& rule) {
  const auto is_denial = [](const Action& action) { return action.kind == Action::Kind::deny; };
  if (std::none_of(rule.actions.begin(), rule.actions.end(), is_denial)) return {};
  const auto* probe = std::get_if<ProbeRule>(&rule.kind);
  bool at_entry = probe != nullptr && !probe->returns;
  for (const std::string& text : probe ? probe->probes : std::vector<std::string>()) {
    const auto site = parse_site(text);
    at_entry = at_entry && site && !site->user && !site->at_return && site->offset == 0;
  }
  if (at_entry) return {};
  return Error{.code = ErrorCode::usage,
               .message = "deny: a call can be refused only where a function of the kernel begins",
               .hint = "probe: kprobe:FUNCTION, without `returns`"};
}

}  // namespace

std::string RuleLoader::Item::title() const {
  return fmt::format("{} \"{}\": ", what, escape_bytes(name.substr(0, longest_name)));
}

void RuleLoader::add_error(Error error) {
  constexpr std::size_t most = RuleFileBounds::errors;
  if (made_.errors.size() > most) return;
  if (made_.errors.size() == most) error = {ErrorCode::usage, "more errors are left out"};
  made_.errors.push_back(std::move(error));
}

void RuleLoader::report(Item& item, unsigned line, const std::string& why, std::string hint) {
  item.good = false;
  add_error({.code = ErrorCode::usage,
             .message = to_string(Place{item.place.file, line}) + ": " + item.title() + why,
             .hint = std::move(hint)});
}

void RuleLoader::add_text(const std::string& file, const std::string& text) {
  const YamlItems yaml = parse_yaml_items(text);
  for (const YamlNode& item : yaml.items) read_item(file, item);
  for (const YamlProblem& problem : yaml.problems) {
    add_error({.code = ErrorCode::usage,
               .message = to_string(Place{file, problem.line}) + ": " + problem.what,
               .hint = "what follows in this file was not read"});
  }
}

void RuleLoader::read_item(const std::string& file, const YamlNode& node) {
  if (node.kind == YamlNode::Kind::null) return;
  std::vector<const YamlMember*> named;
  for (const YamlMember& member : node.members) {
    const auto end = std::end(item_keys);
    if (std::find(std::begin(item_keys), end, member.key) != end) named.push_back(&member);
  }
  const auto name = named.size() == 1 ? scalar_text(named.front()->value) : std::nullopt;
  if (!name) {
    return add_error(
        {.code = ErrorCode::usage,
         .message = to_string(Place{file, node.line}) + ": a rule, a macro or a list was expected",
         .hint = hint_of_item(node)});
  }
  Item item{named.front()->key, *name, {file, node.line}};
  const YamlReport to_item = [&](unsigned line, const std::string& why, std::string hint) {
    report(item, line, why, std::move(hint));
  };
  YamlKeys keys(node, "", to_item);
  keys.take(item.what);
  if (const std::string wrong = wrong_name(item.what, item.name); !wrong.empty()) {
    return report(item, node.line, wrong);
  }
  read_named(item, keys);
}

void RuleLoader::read_named(Item& item, YamlKeys& keys) {
  if (keys.take("append") != nullptr) {
    keys.refuse("append", "it is Falco's old way",
                "write override: {condition: append} or what else is to be appended to");
  }
  if (item.what == "rule") return read_rule(item, keys);
  item.what == "macro" ? read_macro(item, keys) : read_list(item, keys);
}

bool RuleLoader::takes_place(Item& item, bool overrides, Places& places, std::size_t most) {
  const auto known = places.find(item.name);
  if (overrides && known == places.end()) {
    report(item, item.place.line, "there is none yet that could be overridden");
    return false;
  }
  if (!overrides && known != places.end()) {
    report(item, item.place.line,
           fmt::format("it is defined already, at {}", to_string(known->second)),
           "to change it, write override: {KEY: replace} with it");
    return false;
  }
  if (!overrides && places.size() == most) {
    report(item, item.place.line, fmt::format("there are more than {}", most));
    return false;
  }
  places.emplace(item.name, item.place);
  return true;
}

// ---- rules ----

void RuleLoader::read_rule(Item& item, YamlKeys& keys) {
  const bool overrides = keys.has("override");
  if (!takes_place(item, overrides, rules_, RuleFileBounds::rules)) return;
  if (overrides) return override_rule(item, keys);
  RuleParts parts = read_rule_parts(keys, item.place.file, RuleItem::definition);
  keys.finish();
  if (item.good) made_.rules.push_back(make_rule(item.name, item.place, std::move(parts)));
}

void RuleLoader::override_rule(Item& item, YamlKeys& keys) {
  const auto changes = read_overrides(keys, rule_override_keys());
  const RuleParts parts = read_rule_parts(keys, item.place.file, RuleItem::addition);
  keys.finish();
  const auto rule = std::find_if(made_.rules.begin(), made_.rules.end(),
                                 [&](const Rule& one) { return one.name == item.name; });
  if (!item.good || rule == made_.rules.end()) return;  // its definition has been reported
  Rule changed = *rule;
  for (const Override& change : changes) {
    if (auto done = apply(change, parts, changed); !done) {
      return report(item, keys.line_of(change.key), done.error().message);
    }
  }
  *rule = std::move(changed);
}

void RuleLoader::check_rules() {
  const ConditionContext form{nullptr, &made_.lists, &made_.macros, &made_.broken};
  std::erase_if(made_.rules, [&](const Rule& rule) {
    auto condition = Condition::compile(rule.condition.text, form);
    auto exceptions = Condition::compile(rule.exceptions, form);
    const auto refuse = [&](const Place& place, Error error) {
      error.message = about(rule, place) + error.message;
      add_error(std::move(error));
    };
    if (!condition) refuse(rule.condition.place, condition.error());
    if (!exceptions) refuse(rule.place, exceptions.error());
    auto denial = check_denial(rule);
    if (!denial) refuse(rule.place, denial.error());
    return !condition || !exceptions || !denial;
  });
}

// ---- macros ----

void RuleLoader::read_macro(Item& item, YamlKeys& keys) {
  const bool overrides = keys.has("override");
  if (!takes_place(item, overrides, macros_, RuleFileBounds::macros)) return;
  const auto changes = read_overrides(keys, {{"condition", true}});
  const auto text = keys.text("condition", YamlKeys::Need::required);
  keys.finish();
  if (!item.good && !overrides) made_.broken.insert(item.name);
  if (!item.good || !text) return;
  PlacedText placed{*text, {item.place.file, keys.line_of("condition")}};
  const auto known = made_.macros.find(item.name);
  const bool appends = !changes.empty() && changes.front().appends;
  if (appends && known != made_.macros.end()) placed.text = known->second.text + " " + placed.text;
  made_.macros.insert_or_assign(item.name, std::move(placed));
}

void RuleLoader::check_macros() {
  const ConditionContext form{nullptr, &made_.lists, &made_.macros, &made_.broken};
  for (const auto& [name, macro] : made_.macros) {
    const auto condition = Condition::compile(macro.text, form);
    if (condition) continue;
    Item item{"macro", name, macro.place};
    report(item, macro.place.line, condition.error().message, condition.error().hint);
    made_.broken.insert(name);
  }
  std::erase_if(made_.macros,
                [&](const auto& macro) { return made_.broken.contains(macro.first); });
}

// ---- lists ----

void RuleLoader::read_list(Item& item, YamlKeys& keys) {
  const bool overrides = keys.has("override");
  if (!takes_place(item, overrides, lists_, RuleFileBounds::lists)) return;
  const auto changes = read_overrides(keys, {{"items", true}});
  auto items = keys.texts("items");
  if (!items && item.good) keys.missing("the key \"items\"");
  keys.finish();
  if (!item.good && !overrides) made_.broken.insert(item.name);
  if (!item.good || !items) return;
  std::vector<std::string>& list = made_.lists[item.name];
  if (changes.empty() || !changes.front().appends) list.clear();
  list.insert(list.end(), items->begin(), items->end());
}

/// False if it is in itself, or too long: then the list that was asked for is told so.
bool RuleLoader::flatten(const std::string& name, Flattening& made) const {
  constexpr std::size_t deepest = 32;
  auto& within = made.within;
  const bool is_circular = std::find(within.begin(), within.end(), name) != within.end();
  within.push_back(name);
  if (is_circular || within.size() > deepest || made_.broken.contains(name)) return false;
  for (const std::string& item : made_.lists.find(name)->second) {
    if (++made.looked_at > Condition::max_values) return false;
    if (!lists_.contains(item)) {
      made.items.push_back(item);
    } else if (!flatten(item, made)) {
      return false;
    }
  }
  within.pop_back();
  return true;
}

void RuleLoader::flatten_lists() {
  constexpr std::size_t most = 16 * Condition::max_values;  // of all lists together
  Lists flat;
  std::vector<std::string> failed;
  std::size_t total = 0;
  for (const auto& [name, items] : made_.lists) {
    Flattening made;
    if (flatten(name, made) && (total += made.items.size()) <= most) {
      flat.emplace(name, std::move(made.items));
      continue;
    }
    Item item{"list", name, lists_.find(name)->second};
    if (made.within.empty()) made.within = {name};
    const std::string chain = escape_bytes(fmt::format("{}", fmt::join(made.within, " > ")));
    report(item, item.place.line,
           fmt::format("its lists are circular, wrong or too long: {}", chain));
    failed.push_back(name);
  }
  made_.lists = std::move(flat);
  made_.broken.insert(failed.begin(), failed.end());
}

RuleSet RuleLoader::finish() {
  flatten_lists();
  check_macros();
  check_rules();
  rules_.clear();
  macros_.clear();
  lists_.clear();
  return std::exchange(made_, RuleSet());
}

}  // namespace vmsight::detect
