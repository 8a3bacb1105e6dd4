// vmsight VERB VM [options]: finds the verb, parses its options, runs it.
#include <unistd.h>

#include <algorithm>
#include <span>

#include "cli/complete.h"
#include "cli/help.h"
#include "cli/verb.h"
#include "render/reference.h"
#include "render/report.h"
#include "sandbox/sandbox.h"
#include "watch/rule_fields.h"

namespace vmsight {
namespace {

Result<void> run_verb(const VerbInfo& info, Session& session, int argc, char** argv) {
  const std::unique_ptr<Verb> verb = info.make();
  CLI::App app;
  declare_verb(app, info, *verb, session.common);
  std::vector<std::string> words(argv + 2, argv + argc);
  VMSIGHT_TRY_VOID(verb->rewrite(words));
  std::reverse(words.begin(), words.end());  // as CLI11 takes them
  try {
    app.parse(std::move(words));
  } catch (const CLI::CallForHelp&) {
    session.out.write(help_of(info, app));
    return {};
  } catch (const CLI::ParseError& error) {
    return usage_error(fmt::format("{}: {}", info.name, error.what()),
                       fmt::format("see `vmsight {} --help`", info.name));
  }
  return verb->run(session);
}

Error unknown_verb(std::string_view word) {
  std::string hint = "the verb comes first, as in `vmsight ps VM`; verbs:";
  for (const VerbInfo* verb : all_verbs()) hint.append(" ").append(verb->name);
  return usage_error(fmt::format("unknown verb '{}'", word), std::move(hint));
}

bool is_help(std::string_view word) { return word == "help" || word == "--help" || word == "-h"; }

/// What stands behind `vmsight help`: nothing, a verb, "records" or "rules".
Result<std::string> help_on(std::span<char* const> words) {
  if (words.size() > 1) return usage_error("help: more than one verb", "`vmsight help ps`");
  const std::string_view topic = words.empty() ? "help" : words.front();
  if (is_help(topic)) return overview();
  if (topic == "records") return records_reference();
  if (topic == "rules") return detect::rules_reference();
  if (const VerbInfo* verb = find_verb(topic)) return help_of(*verb);
  return unknown_verb(topic);
}

Result<void> dispatch(Session& session, int argc, char** argv) {
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (first == "--version" || first == "-V") {
    session.out.write("vmsight " VMSIGHT_VERSION "\n");
    return {};
  }
  if (is_help(first)) {
    VMSIGHT_TRY(const std::string text, help_on({argv + 2, argv + argc}));
    session.out.write(text);
    return {};
  }
  if (first == "--complete") {
    const std::vector<std::string_view> words(argv + 2, argv + argc);
    complete(session.out, words);
    return {};
  }
  if (first.empty()) return usage_error("no verb given", "see `vmsight --help`");
  if (const VerbInfo* verb = find_verb(first)) return run_verb(*verb, session, argc, argv);
  return unknown_verb(first);
}

}  // namespace
}  // namespace vmsight

int main(int argc, char** argv) {
  vmsight::note_inherited_descriptors();
  vmsight::Session session(STDOUT_FILENO);
  session.width = vmsight::terminal_width(STDOUT_FILENO);
  return vmsight::run_program(session.out, [&] { return vmsight::dispatch(session, argc, argv); });
}
