// vmsight VERB VM [options]: finds the verb, parses its options, runs it, reports errors.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <span>

#include "cli/complete.h"
#include "cli/help.h"
#include "cli/verb.h"
#include "render/escape.h"
#include "render/reference.h"
#include "vmsight/view.h"

namespace vmsight {
namespace {

enum ExitStatus { exit_done = 0, exit_failed = 1, exit_usage = 2, exit_impossible = 3 };

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::usage:
      return exit_usage;
    case ErrorCode::unsupported:
      return exit_impossible;
    default:
      return exit_failed;
  }
}

int report(const Error& error) {
  fmt::print(stderr, "vmsight: {}\n", for_terminal(error.message));
  const bool gone = error.code == ErrorCode::vm_gone && error.hint.empty();
  const std::string hint =
      gone ? "the VM was shut down or died; `vmsight list` shows what runs" : error.hint;
  if (!hint.empty()) fmt::print(stderr, "hint: {}\n", for_terminal(hint));
  return status_of(error.code);
}

/// An exception that nobody caught: those of libraries are turned into errors where they arise.
int report_bug(std::string_view what) {
  return report({.code = ErrorCode::os,
                 .message = fmt::format("a bug of vmsight: {}", what),
                 .hint = "please report it, with the command and `vmsight --version`"});
}

/// The reader of our output went away (`vmsight ps vm | head`): end as any filter does.
[[noreturn]] void die_of_sigpipe() {
  std::signal(SIGPIPE, SIG_DFL);
  std::raise(SIGPIPE);
  std::_Exit(exit_failed);
}

std::size_t terminal_width() {
  winsize size{};
  if (::isatty(STDOUT_FILENO) != 1) return 0;
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 80;
}

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
    return session.out.finish();
  } catch (const CLI::ParseError& error) {
    return usage_error(fmt::format("{}: {}", info.name, error.what()),
                       fmt::format("see `vmsight {} --help`", info.name));
  }
  VMSIGHT_TRY_VOID(verb->run(session));
  return session.out.finish();
}

Error unknown_verb(std::string_view word) {
  std::string hint = "the verb comes first, as in `vmsight ps VM`; verbs:";
  for (const VerbInfo* verb : all_verbs()) hint.append(" ").append(verb->name);
  return usage_error(fmt::format("unknown verb '{}'", word), std::move(hint));
}

bool is_help(std::string_view word) { return word == "help" || word == "--help" || word == "-h"; }

/// What stands behind `vmsight help`: nothing, a verb, or "records".
Result<std::string> help_on(std::span<char* const> words) {
  if (words.size() > 1) return usage_error("help: more than one verb", "`vmsight help ps`");
  const std::string_view topic = words.empty() ? "help" : words.front();
  if (is_help(topic)) return overview();
  if (topic == "records") return records_reference();
  if (const VerbInfo* verb = find_verb(topic)) return help_of(*verb);
  return unknown_verb(topic);
}

Result<void> dispatch(Session& session, int argc, char** argv) {
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (first == "--version" || first == "-V") {
    session.out.write("vmsight " VMSIGHT_VERSION "\n");
    return session.out.finish();
  }
  if (is_help(first)) {
    VMSIGHT_TRY(const std::string text, help_on({argv + 2, argv + argc}));
    session.out.write(text);
    return session.out.finish();
  }
  if (first == "--complete") {
    const std::vector<std::string_view> words(argv + 2, argv + argc);
    complete(session.out, words);
    return session.out.finish();
  }
  if (first.empty()) return usage_error("no verb given", "see `vmsight --help`");
  if (const VerbInfo* verb = find_verb(first)) return run_verb(*verb, session, argc, argv);
  return unknown_verb(first);
}

int run(int argc, char** argv) {
  Session session(STDOUT_FILENO);
  session.width = terminal_width();
  const Result<void> done = dispatch(session, argc, argv);
  if (done) return exit_done;
  if (done.error().os_errno == EPIPE && session.out.failed()) die_of_sigpipe();
  // What was found before the error is worth seeing; a second failure adds nothing.
  static_cast<void>(session.out.finish());
  return report(done.error());
}

}  // namespace
}  // namespace vmsight

int main(int argc, char** argv) {
  std::setlocale(LC_CTYPE, "C.UTF-8");
  std::signal(SIGPIPE, SIG_IGN);
  static_cast<void>(vmsight::survive_lost_memory());  // else nothing is mapped, and says so
  try {
    return vmsight::run(argc, argv);
  } catch (const std::bad_alloc&) {
    return vmsight::report({.code = vmsight::ErrorCode::os, .message = "out of memory"});
  } catch (const std::exception& error) {
    return vmsight::report_bug(error.what());
  } catch (...) {
    return vmsight::report_bug("an exception of no known kind");
  }
}
