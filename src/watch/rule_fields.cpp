#include "watch/rule_fields.h"

#include <fmt/format.h>

#include "watch/detector.h"
#include "watch/record_fields.h"

namespace vmsight::detect {
namespace {

std::string_view word_of(const FieldType& type) {
  using Kind = FieldType::Kind;
  switch (type.kind) {
    case Kind::text:
      return "text";
    case Kind::text_list:
      return "texts";
    case Kind::number:
      return "number";
    case Kind::signed_number:
      return "number with a sign";
    case Kind::untyped:
      return "number of unknown sign";
    case Kind::address:
      return "address";
    case Kind::boolean:
      return "true or false";
  }
  return "";
}

bool is_of_process(std::string_view name) { return name.starts_with("proc."); }

/// One line for each type, with the names that have it.
void add(std::string& text, std::string_view heading, RuleKind kind) {
  const Rule rule{.kind = std::move(kind)};
  const auto names = field_names(rule);
  if (!names) return;
  text +=
      fmt::format("{}### {}\n\n| type | fields |\n|---|---|\n", text.empty() ? "" : "\n", heading);
  std::vector<std::pair<std::string_view, std::string>> lines;
  bool has_process = false;
  for (const std::string& name : (*names)->all()) {
    has_process = has_process || is_of_process(name);
    const auto type = (*names)->find(name);
    if (!type || is_of_process(name)) continue;
    const std::string_view word = word_of(*type);
    auto line = std::find_if(lines.begin(), lines.end(),
                             [&](const auto& one) { return one.first == word; });
    if (line == lines.end()) line = lines.insert(lines.end(), {word, ""});
    line->second += fmt::format("{}`{}`", line->second.empty() ? "" : " ", name);
  }
  for (const auto& [word, all] : lines) text += fmt::format("| {} | {} |\n", word, all);
  if (has_process) text += "\nAnd `proc.` before each field of its process.\n";
}

}  // namespace

std::string rules_reference() {
  using Of = Progress::Of;
  std::string text;
  add(text, "`probe`", ProbeRule{.probes = {"kprobe:vfs_read"}});
  add(text, "`heartbeat` with `per: vm`", Heartbeat{.per = Heartbeat::Per::vm});
  add(text, "`heartbeat`", Heartbeat{});
  add(text, "`progress` of `process`, `kernel-thread` and `task`", Progress{});
  add(text, "`progress` of `cpu` and `runqueue`", Progress{.of = Of::cpu});
  add(text, "`progress` of `guest`", Progress{.of = Of::guest});
  add(text, "`loop`", Loop{});
  add(text, "`integrity`", Integrity{});
  each_kind([&](const auto& kind) {
    add(text, fmt::format("`state` of `{}`", kind.key), StateRule{.of = std::string(kind.key)});
  });
  return text;
}

}  // namespace vmsight::detect
