#include "cli/complete.h"

#include <algorithm>

#include "render/escape.h"
#include "render/ps_text.h"
#include "vmsight/probe.h"
#include "vmsight/view.h"
#include "vmsight/vm.h"

namespace vmsight {
namespace {

/// Prints the candidates that begin with what was typed.
class Candidates {
 public:
  Candidates(Output& out, std::string_view typed) : out_(out), typed_(typed) {}
  void add(std::string_view word, std::string_view description) {
    if (word.starts_with(typed_)) out_.print("{}\t{}\n", word, description);
  }

 private:
  Output& out_;
  std::string_view typed_;
};

void add_verbs(Candidates& candidates) {
  for (const VerbInfo* verb : all_verbs()) candidates.add(verb->name, verb->summary);
}

/// The first word, and what may stand behind `help`.
void add_first_words(Candidates& candidates) {
  add_verbs(candidates);
  candidates.add("--help", "all verbs");
  candidates.add("--version", "the version");
}

void add_topics(Candidates& candidates) {
  add_verbs(candidates);
  candidates.add("records", "the fields of --json and --format csv");
  candidates.add("rules", "the fields of rules for watch");
}

/// Whether a word means itself to every shell. Shells put what we offer into the line that they will
/// run, and whoever starts a VM chooses its name: "x;reboot", "$(reboot)", "-x", "~root".
bool is_plain_word(std::string_view word) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._+:@/-").find(c) != std::string_view::npos;
  };
  constexpr std::size_t longest = 255;
  return !word.empty() && word.size() <= longest && word.front() != '-' &&
         std::all_of(word.begin(), word.end(), plain);
}

/// A VM whose name is no plain word is offered by its PID.
void add_vms(Candidates& candidates) {
  const auto list = list_vms();
  if (!list) return;
  for (const VmInfo& vm : list->vms) {
    const std::string pid = std::to_string(vm.pid);
    if (is_plain_word(vm.name))
      candidates.add(vm.name, "pid " + pid);
    else
      candidates.add(pid, for_terminal(vm.name));
  }
}

void add_options(Candidates& candidates, const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;
    for (const std::string& name : option->get_lnames()) {
      candidates.add("--" + name, option->get_description());
    }
  }
}

/// The last word of a list with commas.
template <typename Names>
void add_to_list(Output& out, const Names& names, std::string_view typed) {
  const std::size_t comma = typed.rfind(',');
  const std::string before(comma == std::string_view::npos ? "" : typed.substr(0, comma + 1));
  Candidates candidates(out, typed);
  for (const auto& name : names) candidates.add(before + std::string(name), "");
}

/// Values of the option before the word, where they are known. The last of a list is completed.
bool add_values(Output& out, const VerbInfo& verb, std::string_view option,
                std::string_view typed) {
  if (option == "--technique") {
    Candidates candidates(out, typed);
    candidates.add("auto", "");
    for (std::string_view name : technique_names()) candidates.add(name, "");
    candidates.add("file", "");
    return true;
  }
  if (option == "--engine") {
    Candidates candidates(out, typed);
    candidates.add("auto", "");
    for (std::string_view name : engine_names()) candidates.add(name, "");
    return true;
  }
  const bool columns = option == "-o" || option == "--format" || option == "--sort";
  if (verb.name == "ps" && columns) {
    add_to_list(out, ps_column_names(), typed);
    return true;
  }
  return false;
}

/// Values that CLI11 checks: they stand behind the option's type, as in "PART,...:{os,cpus}".
bool add_choices(Output& out, const CLI::App& app, const std::string& name,
                 std::string_view typed) {
  const CLI::Option* option = name.starts_with('-') ? app.get_option_no_throw(name) : nullptr;
  if (option == nullptr) return false;
  const std::string type = option->get_type_name();
  const std::size_t open = type.find('{'), close = type.rfind('}');
  if (open == std::string::npos || close == std::string::npos || close < open) return false;
  add_to_list(out, CLI::detail::split(type.substr(open + 1, close - open - 1), ','), typed);
  return true;
}

std::size_t positionals_before(std::span<const std::string_view> words) {
  return static_cast<std::size_t>(std::count_if(
      words.begin(), words.end(), [](std::string_view word) { return !word.starts_with('-'); }));
}

}  // namespace

void complete(Output& out, std::span<const std::string_view> words) {
  const std::string_view typed = words.empty() ? "" : words.back();
  Candidates candidates(out, typed);
  if (words.size() <= 1) return add_first_words(candidates);
  if (words.front() == "help" && words.size() == 2) return add_topics(candidates);
  const VerbInfo* info = find_verb(words.front());
  if (info == nullptr) return;
  const std::string_view before = words[words.size() - 2];
  if (add_values(out, *info, before, typed)) return;
  CommonOptions common;
  CLI::App app;
  const std::unique_ptr<Verb> verb = info->make();
  declare_verb(app, *info, *verb, common);
  if (add_choices(out, app, std::string(before), typed)) return;
  if (typed.starts_with('-')) return add_options(candidates, app);
  const bool first = positionals_before(words.subspan(1, words.size() - 2)) == 0;
  if (first && info->vm != VmArgument::none) add_vms(candidates);
}

}  // namespace vmsight
