#include "cli/watch_actions.h"

#include <sys/stat.h>
#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "cli/verb.h"
#include "cli/watch_case.h"
#include "detect/sink.h"
#include "kernel/guest_text.h"
#include "render/escape.h"

namespace vmsight {
namespace {

using detect::Action;
using detect::Alarm;
using detect::GuestWatch;
using detect::Rule;
using namespace std::chrono_literals;

constexpr std::chrono::milliseconds command_limit = 10s, snapshot_limit = 10min;

std::string_view word_of(Action::Kind kind) {
  switch (kind) {
    case Action::Kind::open_case:
      return "case";
    case Action::Kind::pause:
      return "pause";
    case Action::Kind::snapshot:
      return "snapshot";
    case Action::Kind::deny:
      return "deny";
    case Action::Kind::run:
      break;
  }
  return "run";
}

bool needs_directory(Action::Kind kind) {
  return kind == Action::Kind::open_case || kind == Action::Kind::snapshot;
}

std::string about_rule(const Rule& rule, std::string_view what) {
  return fmt::format("rule \"{}\": {}", escape_bytes(rule.name), what);
}

}  // namespace

Result<WatchActions> WatchActions::create(ActionOptions options) {
  WatchActions made;
  for (const std::string& word : options.allowed) {
    constexpr Action::Kind kinds[] = {Action::Kind::pause, Action::Kind::snapshot,
                                      Action::Kind::run, Action::Kind::deny};
    const auto kind = std::ranges::find(kinds, word, word_of);
    if (kind == std::end(kinds)) {
      return usage_error(fmt::format("watch: --allow {}: there is no such action", word),
                         "actions that need leave are pause, snapshot, run, deny");
    }
    made.allowed_.insert(*kind);
  }
  if (!options.cases.empty() && ::mkdir(options.cases.c_str(), 0700) != 0 && errno != EEXIST)
    return os_error(errno, "make " + options.cases);
  std::error_code failed;
  made.program_ = std::filesystem::read_symlink("/proc/self/exe", failed).string();
  made.options_ = std::move(options);
  return made;
}

std::string WatchActions::refusal(const Action& action) const {
  if (action.kind != Action::Kind::open_case && !allowed_.contains(action.kind))
    return fmt::format("--allow {} is not given", word_of(action.kind));
  if (needs_directory(action.kind) && options_.cases.empty()) return "--cases names no directory";
  return "";
}

std::vector<std::string> WatchActions::refusals(const Rule& rule) const {
  std::vector<std::string> all;
  for (const Action& action : rule.actions) {
    const std::string why = refusal(action);
    if (why.empty()) continue;
    all.push_back(about_rule(rule, fmt::format("its action \"{}\" will not be taken: {}",
                                               escape_bytes(detect::to_string(action)), why)));
  }
  return all;
}

bool WatchActions::takes(const Rule& rule, Action::Kind kind) const {
  return std::ranges::any_of(rule.actions, [&](const Action& action) {
    return action.kind == kind && refusal(action).empty();
  });
}

bool WatchActions::may_have_one_more(const Rule& rule, std::string_view what, unsigned most,
                                     const Note& note) {
  const unsigned taken = ++taken_[fmt::format("{} {}", what, rule.name)];
  if (taken == most + 1)
    note(about_rule(rule, fmt::format("it has had {} {}s: there will be no more", most, what)));
  return taken <= most;
}

/// By a process of its own: it may take long, and hits wait for us meanwhile.
void WatchActions::add_snapshot(Alarm& alarm, GuestWatch& guest, const std::string& path) const {
  if (!guest.guest().vm) return;
  const std::string pid = std::to_string(guest.guest().vm->info().pid);
  alarm.commands.push_back(
      {.arguments = {program_, "snapshot", pid, path}, .limit = snapshot_limit});
  alarm.evidence["snapshot"] = path;
}

void WatchActions::before(Alarm& alarm, const Rule& rule, GuestWatch& guest, const Note& note) {
  case_.clear();
  if (rule.actions.empty()) return;
  if (!alarm.evidence.is_object()) alarm.evidence = nlohmann::json::object();
  if (takes(rule, Action::Kind::pause)) {
    const auto paused = guest.pause(about_rule(rule, "its action \"pause\""));
    if (paused) {
      alarm.evidence["paused"] = *paused;
      note(fmt::format("{}: {}", guest.name(),
                       about_rule(rule, *paused ? "the guest is paused; `cont` lets it go on"
                                                : "the guest stood already")));
    } else {
      note(about_rule(rule, fmt::format("pause: {}", paused.error().message)));
    }
  }
  const std::string place =
      fmt::format("{}/{}-{}", options_.cases, detect::rfc3339(alarm.time_ns), ++number_);
  bool with_core = options_.case_core;
  for (const Action& action : rule.actions) with_core |= action.with_core;
  if (takes(rule, Action::Kind::open_case) && may_have_one_more(rule, "case", most_cases, note)) {
    if (::mkdir(place.c_str(), 0700) == 0) {
      case_ = place;
      alarm.evidence["case"] = place;
    } else {
      note(about_rule(rule, os_error(errno, "case: make " + place).message));
    }
  }
  const bool has_core = !case_.empty() && with_core;
  if ((has_core || takes(rule, Action::Kind::snapshot)) &&
      may_have_one_more(rule, "snapshot", most_snapshots, note)) {
    add_snapshot(alarm, guest, case_.empty() ? place + ".core" : case_ + "/core");
  }
  for (const Action& action : rule.actions) {
    if (action.kind != Action::Kind::run || !refusal(action).empty()) continue;
    alarm.commands.push_back(
        {.arguments = {"/bin/sh", "-c", action.command}, .limit = command_limit});
  }
}

void WatchActions::after(const Alarm& alarm, GuestWatch& guest, const Note& note) {
  if (case_.empty()) return;
  if (auto written = write_case(case_, alarm, guest); !written)
    note(fmt::format("case {}: {}", case_, written.error().message));
}

}  // namespace vmsight
