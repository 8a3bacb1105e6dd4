#include "detect/rule_reader.h"

#include <fmt/format.h>
#include <algorithm>

#include "base/text.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

using Need = YamlKeys::Need;

constexpr std::string_view kinds[] = {"heartbeat", "progress", "probe", "state", "integrity"};

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
  const auto texts = keys.texts("actions");
  if (!texts) return std::nullopt;
  std::vector<Action> actions;
  for (const std::string& text : *texts) {
    const auto action = parse_action(text);
    if (action) {
      actions.push_back(*action);
    } else {
      keys.refuse("actions", fmt::format("\"{}\" is no action", escape_bytes(text)),
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
                 .value_or(Heartbeat::Per::vm);
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
  return made;
}

RuleKind read_integrity(YamlKeys& keys) {
  Integrity made;
  made.checks = keys.text_or_texts("check", Need::required).value_or(std::vector<std::string>());
  made.every_ns = keys.duration("every", Need::optional).value_or(made.every_ns);
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

std::optional<RuleKind> read_probe(YamlKeys& keys) {
  auto probes = keys.text_or_texts("probe", Need::optional);
  const auto returns = keys.boolean("returns");
  if (returns && !keys.has("probe")) keys.refuse("returns", "only a rule with \"probe\" has it");
  if (!probes) return std::nullopt;
  return ProbeRule{*std::move(probes), returns.value_or(false)};
}

/// Every kind's key is asked for, so that all of them are known.
std::optional<RuleKind> read_kind(YamlKeys& keys, RuleItem item) {
  std::vector<std::string_view> given;
  for (const std::string_view kind : kinds) {
    if (keys.has(kind)) given.push_back(kind);
  }
  std::optional<RuleKind> made;
  const auto keep = [&](std::optional<RuleKind> one) {
    if (one) made = std::move(one);
  };
  keep(read_map_kind(keys, "heartbeat", read_heartbeat));
  keep(read_map_kind(keys, "progress", read_progress));
  keep(read_probe(keys));
  keep(read_map_kind(keys, "state", read_state));
  keep(read_map_kind(keys, "integrity", read_integrity));
  if (given.size() > 1) {
    keys.refuse(given[1], fmt::format("it is a rule of the kind \"{}\" already", given[0]),
                "write a rule for each kind");
  } else if (given.empty() && item == RuleItem::definition) {
    keys.missing(fmt::format("one of the keys {}", fmt::join(kinds, ", ")));
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
  parts.kind = read_kind(keys, item);
  return parts;
}

}  // namespace vmsight::detect
