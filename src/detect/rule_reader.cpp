#include "detect/rule_reader.h"

#include <fmt/format.h>
#include <algorithm>

#include "base/text.h"
#include "detect/condition.h"
#include "kernel/guest_text.h"
#include "probe/expression.h"
#include "vmsight/probe.h"

namespace vmsight::detect {
namespace {

using Need = YamlKeys::Need;

std::optional<PlacedText> placed(YamlKeys& keys, std::string_view key, const std::string& file,
                                 Need need) {
  auto text = keys.text(key, need);
  if (!text) return std::nullopt;
  return PlacedText{*std::move(text), {file, keys.line_of(key)}};
}

std::optional<Priority> read_priority(YamlKeys& keys, Need need) {
  const auto text = keys.text("priority", need);
  if (!text) return std::nullopt;
  const auto priority = parse_priority(*text);
  if (!priority) {
    keys.refuse("priority", fmt::format("\"{}\" is no priority", escape_bytes(*text)),
                "priorities are emergency, alert, critical, error, warning, notice, informational, "
                "debug");
  }
  return priority;
}

std::optional<AlarmLimit> read_limit(YamlKeys& keys) {
  auto limit = keys.map("limit");
  if (!limit) return std::nullopt;
  AlarmLimit made;
  if (auto key = limit->text_or_texts("key", Need::optional)) made.key = *std::move(key);
  made.every_ns = limit->duration("every", Need::required).value_or(0);
  limit->finish();
  return made;
}

std::optional<Action> parse_action(const std::string& text) {
  constexpr std::pair<std::string_view, Action::Kind> words[] = {
      {"case", Action::Kind::open_case},
      {"pause", Action::Kind::pause},
      {"snapshot", Action::Kind::snapshot},
      {"deny", Action::Kind::deny},
  };
  for (const auto& [word, kind] : words) {
    if (text == word) return Action{.kind = kind};
  }
  if (text == "case core") return Action{.kind = Action::Kind::open_case, .with_core = true};
  constexpr std::string_view run = "run ";
  const std::size_t command = text.find_first_not_of(' ', run.size());
  if (!text.starts_with(run) || command == text.npos) return std::nullopt;
  return Action{.kind = Action::Kind::run, .command = text.substr(command)};
}

std::optional<std::vector<Action>> read_actions(YamlKeys& keys) {
  constexpr std::string_view key = "action";
  const YamlNode* node = keys.take(key);
  if (node == nullptr) return std::nullopt;
  const auto one = scalar_text(*node);
  const auto texts = one ? std::optional(std::vector{*one}) : scalar_texts(*node);
  if (!texts) {
    keys.refuse(key, "a text, or a list of them, was expected");
    return std::nullopt;
  }
  std::vector<Action> actions;
  for (const std::string& text : *texts) {
    const auto action = parse_action(text);
    if (action) {
      actions.push_back(*action);
    } else {
      keys.refuse(key, fmt::format("\"{}\" is no action", escape_bytes(text)),
                  "actions are case, \"case core\", pause, snapshot, deny, \"run COMMAND\"");
    }
  }
  return actions;
}

// ---- kinds ----

RuleKind read_heartbeat(YamlKeys& keys) {
  Heartbeat made;
  made.probes = keys.text_or_texts("probe", Need::required).value_or(std::vector<std::string>());
  made.expect_ns = keys.duration("expect", Need::required).value_or(0);
  made.grace_ns = keys.duration("grace", Need::optional, YamlKeys::Zero::allowed).value_or(0);
  made.per = keys.choice<Heartbeat::Per>(
                     "per", Need::optional,
                     {{"vm", Heartbeat::Per::vm}, {"process", Heartbeat::Per::process}})
                 .value_or(Heartbeat::Per::process);
  return made;
}

/// "20" or "20%".
std::optional<unsigned> read_percent(YamlKeys& keys, std::string_view key) {
  constexpr unsigned most = 100'000;  // of one processor: a thousand of them
  const auto text = keys.text(key);
  if (!text) return std::nullopt;
  const std::string_view digits = std::string_view(*text).substr(0, text->find('%'));
  const auto number = parse_whole<unsigned>(digits);
  if (number && *number <= most && text->size() <= digits.size() + 1) return number;
  keys.refuse(key, "a percentage of one processor was expected");
  return std::nullopt;
}

RuleKind read_progress(YamlKeys& keys) {
  using Of = Progress::Of;
  Progress made;
  YamlKeys::Choices<Of> choices;
  for (const Of of : {Of::process, Of::kernel_thread, Of::cpu, Of::task, Of::runqueue, Of::guest}) {
    choices.emplace_back(to_string(of), of);
  }
  made.of = keys.choice<Of>("of", Need::required, choices).value_or(Of::process);
  made.cpu_percent = read_percent(keys, "cpu");
  made.for_ns = keys.duration("for", Need::required).value_or(0);
  return made;
}

RuleKind read_state(YamlKeys& keys) {
  using When = StateRule::When;
  StateRule made;
  YamlKeys::Choices<When> choices;
  for (const When when : {When::present, When::appeared, When::gone, When::changed}) {
    choices.emplace_back(to_string(when), when);
  }
  made.of = keys.text("of", Need::required).value_or("");
  made.when = keys.choice<When>("when", Need::required, choices).value_or(When::present);
  made.every_ns = keys.duration("every", Need::optional).value_or(made.every_ns);
  made.for_ns = keys.duration("for", Need::optional).value_or(0);
  if (made.for_ns != 0 && made.when != When::present)
    keys.refuse("for", "only what is present can be so for a time");
  return made;
}

RuleKind read_integrity(YamlKeys& keys) {
  Integrity made;
  made.checks = keys.text_or_texts("check", Need::required).value_or(std::vector<std::string>());
  made.every_ns = keys.duration("every", Need::optional).value_or(made.every_ns);
  return made;
}

std::optional<std::uint64_t> read_count(YamlKeys& keys, std::string_view key) {
  const auto text = keys.text(key);
  if (!text) return std::nullopt;
  const auto number = parse_whole<std::uint64_t>(*text);
  if (number && *number > 0) return number;
  keys.refuse(key, "a whole number above 0 was expected");
  return std::nullopt;
}

/// The text of one site, "" if there is none.
std::string read_site(YamlKeys& keys, std::string_view key, Need need) {
  auto text = keys.text(key, need).value_or("");
  if (text.empty()) return text;
  const auto site = parse_site(text);
  if (!site) keys.refuse(key, site.error().message);
  if (site && site->is_pattern()) keys.refuse(key, "one place was expected, not a pattern");
  return text;
}

RuleKind read_loop(YamlKeys& keys) {
  Loop made;
  made.entry = read_site(keys, "entry", Need::required);
  made.exit = read_site(keys, "exit", Need::required);
  made.body = read_site(keys, "body", Need::optional);
  made.for_ns = keys.duration("for", Need::optional).value_or(0);
  made.turns = read_count(keys, "turns").value_or(0);
  if (!made.entry.empty() &&
      (made.entry == made.exit || made.entry == made.body || made.exit == made.body))
    keys.refuse("exit", "entry, body and exit are different places");
  if (!keys.has("for") && !keys.has("turns"))
    keys.refuse("exit", "nothing bounds it", "write `for`, or `body` and `turns`");
  if (keys.has("turns") != keys.has("body"))
    keys.refuse(keys.has("turns") ? "turns" : "body", "turns are hits of the body: write both");
  return made;
}

using ReadKind = RuleKind (*)(YamlKeys&);

std::optional<RuleKind> read_map_kind(YamlKeys& keys, std::string_view kind, ReadKind read) {
  auto map = keys.map(kind);
  if (!map) return std::nullopt;
  RuleKind made = read(*map);
  map->finish();
  return made;
}

bool is_field_name(std::string_view name) {
  const auto is_part = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  return !name.empty() && !(name[0] >= '0' && name[0] <= '9') &&
         std::all_of(name.begin(), name.end(), is_part) && !is_reserved_word(name);
}

std::vector<RuleField> read_fields(YamlKeys& keys, const std::string& file) {
  std::vector<RuleField> fields;
  auto map = keys.map("fields");
  if (!map) return fields;
  for (const YamlMember& member : map->members()) {
    if (!is_field_name(member.key)) map->refuse(member.key, "it cannot be the name of a field");
    auto expression = placed(*map, member.key, file, Need::required);
    if (!expression) continue;
    if (auto tree = parse_expression(expression->text); !tree)
      map->refuse(member.key, tree.error().message);
    fields.push_back({member.key, *std::move(expression)});
  }
  map->finish();
  return fields;
}

std::optional<RuleKind> read_probe(YamlKeys& keys, const std::string& file) {
  auto probes = keys.text_or_texts("probe", Need::optional);
  const auto returns = keys.boolean("returns");
  auto fields = read_fields(keys, file);
  for (const std::string_view key : {"returns", "fields"}) {
    if (keys.has(key) && !keys.has("probe")) keys.refuse(key, "only a rule with \"probe\" has it");
  }
  if (!probes) return std::nullopt;
  return ProbeRule{*std::move(probes), std::move(fields), returns.value_or(false)};
}

/// Every kind's key is asked for, so that all of them are known.
std::optional<RuleKind> read_kind(YamlKeys& keys, const std::string& file, RuleItem item) {
  std::vector<std::string_view> given;
  for (const std::string_view kind : rule_kinds()) {
    if (keys.has(kind)) given.push_back(kind);
  }
  std::optional<RuleKind> made;
  const auto keep = [&](std::optional<RuleKind> one) {
    if (one) made = std::move(one);
  };
  keep(read_map_kind(keys, "heartbeat", read_heartbeat));
  keep(read_map_kind(keys, "progress", read_progress));
  keep(read_probe(keys, file));
  keep(read_map_kind(keys, "state", read_state));
  keep(read_map_kind(keys, "integrity", read_integrity));
  keep(read_map_kind(keys, "loop", read_loop));
  if (given.size() > 1) {
    keys.refuse(given[1], fmt::format("it is a rule of the kind \"{}\" already", given[0]),
                "write a rule for each kind");
  } else if (given.empty() && item == RuleItem::definition) {
    keys.missing(fmt::format("one of the keys {}", fmt::join(rule_kinds(), ", ")));
  }
  return made;
}

}  // namespace

RuleParts read_rule_parts(YamlKeys& keys, const std::string& file, RuleItem item) {
  const Need need = item == RuleItem::definition ? Need::required : Need::optional;
  RuleParts parts;
  parts.desc = keys.text("desc", need);
  parts.enabled = keys.boolean("enabled");
  parts.condition = placed(keys, "condition", file, Need::optional);
  parts.output = placed(keys, "output", file, need);
  parts.priority = read_priority(keys, need);
  parts.tags = keys.texts("tags");
  parts.exceptions = read_exceptions(keys, file, item);
  parts.limit = read_limit(keys);
  parts.actions = read_actions(keys);
  parts.references = keys.texts("references");
  parts.false_positives = keys.text("false_positives");
  parts.test = keys.text("test");
  parts.kind = read_kind(keys, file, item);
  return parts;
}

}  // namespace vmsight::detect
