#include "cli/help.h"

#include <algorithm>

namespace vmsight {
namespace {

constexpr std::size_t column = 30, width = 100;  // where descriptions begin and end

/// A description, whose lines but the first are indented.
std::string broken_into_lines(std::string_view text) {
  std::string lines;
  while (text.size() > width - column) {
    const std::size_t end = text.rfind(' ', width - column);
    if (end == text.npos) break;
    lines.append(text.substr(0, end)).append("\n").append(column, ' ');
    text.remove_prefix(end + 1);
  }
  return lines.append(text);
}

std::string entry(const std::string& name, const std::string& description) {
  const std::string lines = broken_into_lines(description);
  if (name.size() + 4 <= column) return fmt::format("  {:<{}}{}\n", name, column - 2, lines);
  return fmt::format("  {}\n{:{}}{}\n", name, "", column, lines);
}

std::string left_side(const CLI::Option& option) {
  if (option.get_positional()) return option.get_name(true);
  std::string name = option.get_snames().empty() ? "    " : "";
  name += option.get_name(false, true);
  for (auto comma = name.find(','); comma != std::string::npos; comma = name.find(',', comma + 2)) {
    name.insert(comma + 1, " ");
  }
  // What checks the value stands behind a colon: "N:POSITIVE".
  const std::string type = option.get_type_name();
  const std::string value = type.substr(0, type.find(':'));
  return option.get_type_size() == 0 || value.empty() ? name : name + " " + value;
}

std::vector<std::string> groups_of(const std::vector<const CLI::Option*>& options) {
  std::vector<std::string> groups;
  for (const CLI::Option* option : options) {
    const std::string& group = option->get_group();
    if (!group.empty() && std::find(groups.begin(), groups.end(), group) == groups.end()) {
      groups.push_back(group);
    }
  }
  return groups;
}

}  // namespace

std::string overview() {
  std::string text =
      "Usage: vmsight VERB VM [options]\n\n"
      "See inside a running Linux VM from its host, with nothing installed in the guest.\n"
      "VM is a name, PID, UUID or libvirt domain, the path of a QMP socket, or a file with a\n"
      "memory image: an ELF core, a kdump, LiME, AVML, raw RAM, a saved domain and others, also "
      "in\n"
      "gzip or zstd. What an image left out is missing, never zero.\n";
  std::string_view group;
  for (const VerbInfo* verb : all_verbs()) {
    if (verb->group != group) text += fmt::format("\n{}:\n", group = verb->group);
    text += fmt::format("  {:<10} {}\n", verb->name, verb->summary);
  }
  return text +
         "\n`vmsight help VERB` or `vmsight VERB --help` shows the options of a verb,\n"
         "`vmsight help records` the fields of --json and --format csv, `vmsight help rules` "
         "those\n"
         "of rules for watch, `vmsight --version` the version.\n"
         "Exit status: 0 done, 1 failed, 2 wrong usage, 3 not possible on this host or VM.\n\n"
         "Examples:\n  vmsight list\n  vmsight ps web1\n";
}

std::string help_of(const VerbInfo& verb, const CLI::App& app) {
  std::string text =
      fmt::format("Usage: vmsight {} {}\n\n{}.\n", verb.name, verb.arguments, verb.summary);
  const std::vector<const CLI::Option*> options = app.get_options();
  for (const std::string& group : groups_of(options)) {
    text += fmt::format("\n{}:\n", group);
    for (const CLI::Option* option : options) {
      if (option->get_group() != group) continue;
      text += entry(left_side(*option), option->get_description());
    }
  }
  return text + fmt::format("\nExamples:\n{}", verb.examples);
}

std::string help_of(const VerbInfo& verb) {
  const std::unique_ptr<Verb> made = verb.make();
  CommonOptions common;
  CLI::App app;
  declare_verb(app, verb, *made, common);
  return help_of(verb, app);
}

}  // namespace vmsight
