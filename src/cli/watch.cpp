// vmsight watch VM...: rules that run on guests, and the alarms that they raise.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "base/clock.h"
#include "base/os.h"
#include "cli/attach.h"
#include "cli/stop_signal.h"
#include "detect/rule_file.h"
#include "detect/sink.h"
#include "render/escape.h"
#include "render/json.h"
#include "watch/guest_watch.h"

namespace vmsight {
namespace {

using namespace detect;
using namespace std::chrono_literals;

constexpr const char* rules_group = "Rules";
constexpr const char* alarms_group = "Alarms";
constexpr std::string_view site_rules = "/etc/vmsight/rules.d";

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

bool exists(const std::string& path) {
  std::error_code failed;
  return std::filesystem::exists(path, failed);
}

class Watch : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("VMS", more_vms_, "further VMs")->group("Arguments")->type_name("");
    app.add_option(
           "-r,--rules", wanted_,
           "file or directory of rules, or the name of a rule that ships; default: all that "
           "ship and are enabled, and /etc/vmsight/rules.d")
        ->group(rules_group)
        ->type_name("FILE|DIR|NAME")
        ->allow_extra_args(false);
    app.add_option("--tag", tags_, "only rules that have this tag")
        ->group(rules_group)
        ->type_name("TAG")
        ->allow_extra_args(false);
    app.add_option("--disable", disabled_, "not the rules of this name or tag")
        ->group(rules_group)
        ->type_name("NAME|TAG")
        ->allow_extra_args(false);
    app.add_option("--check", check_, "say what is wrong in a file or directory of rules, and end")
        ->group(rules_group)
        ->type_name("FILE|DIR");
    app.add_flag("--list", list_, "list the rules that would run, and end")->group(rules_group);
    app.add_option("--explain", explain_, "all that a rule says of itself, and end")
        ->group(rules_group)
        ->type_name("RULE");
    app.add_option(
           "-o,--output", outputs_,
           "where alarms go besides standard output: a file, syslog, alertmanager:HOST:PORT, "
           "or command:LINE, which gets each alarm as JSON on its standard input")
        ->group(alarms_group)
        ->type_name("WHERE")
        ->allow_extra_args(false);
    app.add_flag("--ocsf", ocsf_, "alarms as OCSF Detection Findings, a line each")
        ->group(alarms_group);
    app.add_option("--cases", cases_,
                   "directory for cases of rules with `action: [case]`: alarm, state, kernel log")
        ->group(alarms_group)
        ->type_name("DIR");
    app.add_option("--engine", engine_,
                   fmt::format("how to probe: auto, {}", fmt::join(engine_names(), ", ")))
        ->group("How")
        ->type_name("NAME");
    app.add_option("-n,--count", count_, "end after N alarms")
        ->group("Schedule")
        ->type_name("N")
        ->check(positive());
    app.add_option("-d,--duration", duration_s_, "end after this time")
        ->group("Schedule")
        ->type_name("SECONDS")
        ->check(positive());
  }

  Result<void> run(Session& session) override {
    session_ = &session;
    if (!check_.empty()) return check_rules();
    VMSIGHT_TRY_VOID(load());
    if (list_) return list_rules();
    if (!explain_.empty()) return explain_rule();
    if (session.common.vm.empty()) {
      return usage_error("watch: no VM given", "`vmsight list` shows the VMs of this host");
    }
    return watch();
  }

 private:
  // ---- rules -------------------------------------------------------------------------------

  Result<void> check_rules() {
    set_ = load_rules({check_});
    for (const Rule& rule : set_.rules) {
      auto checked = check_rule(rule, set_);
      if (!checked) set_.errors.push_back(std::move(checked).error());
    }
    for (const Error& error : set_.errors) session_->out.print("{}\n", for_terminal(error.message));
    if (set_.errors.empty()) {
      session_->out.print("{} rules: all is well\n", set_.rules.size());
      return {};
    }
    return Error{.code = ErrorCode::bad_data,
                 .message = fmt::format("{}: {} errors", check_, set_.errors.size())};
  }

  /// Files and directories are read; other words are names of rules that ship.
  Result<void> load() {
    std::vector<std::string> paths, names;
    for (const std::string& wanted : wanted_)
      (wanted.find('/') != std::string::npos || exists(wanted) ? paths : names).push_back(wanted);
    if (paths.empty()) {
      if (const std::string shipped = shipped_rules(); !shipped.empty()) paths.push_back(shipped);
      if (exists(std::string(site_rules))) paths.emplace_back(site_rules);
    }
    set_ = load_rules(paths);
    for (const Error& error : set_.errors)
      fmt::print(stderr, "vmsight: warning: {}\n", for_terminal(error.message));
    VMSIGHT_TRY(chosen_,
                select(set_.rules, {.names = names, .tags = tags_, .disabled = disabled_}));
    if (!chosen_.empty() || !explain_.empty()) return {};
    return usage_error("watch: no rules to run", "--rules names files, directories or rules");
  }

  Result<void> list_rules() {
    for (const Rule& rule : chosen_) {
      if (session_->common.json) {
        session_->out.print("{}\n", dump(to_json(rule)));
        continue;
      }
      session_->out.print("{:<32} {:<13} {:<10} {}\n", for_terminal(rule.name),
                          detect::to_string(rule.priority), kind_name(rule.kind),
                          for_terminal(rule.desc));
    }
    return {};
  }

  static Json to_json(const Rule& rule) {
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

  Result<void> explain_rule() {
    const auto rule = std::find_if(set_.rules.begin(), set_.rules.end(),
                                   [&](const Rule& r) { return r.name == explain_; });
    if (rule == set_.rules.end()) {
      return Error{.code = ErrorCode::not_found,
                   .message = fmt::format("no rule is called \"{}\"", explain_),
                   .hint = "`vmsight watch --list` lists them"};
    }
    const Json all = to_json(*rule);
    if (session_->common.json) {
      session_->out.print("{}\n", dump(all));
      return {};
    }
    for (const auto& [key, value] : all.items()) {
      const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
      session_->out.print("{:<16} {}\n", key, for_terminal(text));
    }
    VMSIGHT_TRY(const auto names, field_names(*rule, nullptr));
    session_->out.print("{:<16} {}\n", "fields", fmt::join(names->all(), " "));
    return {};
  }

  // ---- alarms ------------------------------------------------------------------------------

  AlarmFormat format() const {
    if (ocsf_) return AlarmFormat::ocsf;
    return session_->common.json ? AlarmFormat::json : AlarmFormat::text;
  }

  Result<void> open_sinks() {
    sinks_.push_back(make_descriptor_sink(STDOUT_FILENO, format()));
    for (const std::string& output : outputs_) {
      VMSIGHT_TRY(auto sink, open_sink(output));
      sinks_.push_back(std::move(sink));
    }
    return {};
  }

  Result<std::unique_ptr<AlarmSink>> open_sink(const std::string& output) const {
    const auto behind = [&](std::string_view kind) -> std::optional<std::string> {
      if (!output.starts_with(kind)) return std::nullopt;
      return output.substr(kind.size());
    };
    if (output == "syslog") return open_syslog_sink({});
    if (const auto line = behind("command:")) return open_command_sink({.shell_line = *line});
    if (const auto address = behind("alertmanager:"))
      return open_alertmanager_sink({.address = *address});
    return open_file_sink(output, ocsf_ ? AlarmFormat::ocsf : AlarmFormat::json);
  }

  void deliver(const Alarm& alarm, const Rule& rule, GuestWatch& guest) {
    ++alarms_;
    for (const auto& sink : sinks_) {
      if (auto done = sink->deliver(alarm); !done)
        fmt::print(stderr, "vmsight: warning: {}\n", for_terminal(done.error().message));
    }
    for (const Action& action : rule.actions) act(action, alarm, guest);
  }

  void act(const Action& action, const Alarm& alarm, GuestWatch& guest) {
    if (action.kind != Action::Kind::open_case || cases_.empty()) {
      fmt::print(stderr, "vmsight: warning: rule \"{}\": action \"{}\" was not taken: {}\n",
                 for_terminal(alarm.rule), for_terminal(detect::to_string(action)),
                 action.kind == Action::Kind::open_case ? "--cases names no directory"
                                                        : "watch cannot do it yet");
      return;
    }
    if (auto written = write_case(alarm, guest); !written)
      fmt::print(stderr, "vmsight: warning: case: {}\n", for_terminal(written.error().message));
  }

  /// DIR/TIME-NUMBER: alarm.json, state.json.
  Result<void> write_case(const Alarm& alarm, GuestWatch& guest) {
    const std::string folder = fmt::format("{}/{}-{}", cases_, rfc3339(alarm.time_ns), alarms_);
    if (::mkdir(cases_.c_str(), 0700) != 0 && errno != EEXIST)
      return os_error(errno, "make " + cases_);
    if (::mkdir(folder.c_str(), 0700) != 0) return os_error(errno, "make " + folder);
    VMSIGHT_TRY_VOID(write_file(folder + "/alarm.json", [&](Output& out) {
      out.print("{}\n", format_alarm(alarm, AlarmFormat::json, host_name()));
    }));
    State state;
    VMSIGHT_TRY_VOID(guest.read(part_all, state));
    return write_file(folder + "/state.json", [&](Output& out) {
      write_document(out, summary_of(guest.guest()), state, {.parts = part_all});
    });
  }

  static Result<void> write_file(const std::string& path,
                                 const std::function<void(Output&)>& write) {
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file) return os_error(errno, "write " + path);
    Output out(file.get());
    write(out);
    return out.finish();
  }

  // ---- guests ------------------------------------------------------------------------------

  Result<void> watch() {
    end_orderly_on({SIGINT, SIGTERM, SIGHUP});
    ::signal(SIGTSTP, SIG_IGN);  // a guest that comes to a breakpoint waits for us
    VMSIGHT_TRY_VOID(open_sinks());
    std::vector<std::string> names{session_->common.vm};
    names.insert(names.end(), more_vms_.begin(), more_vms_.end());
    for (const std::string& name : names) {
      VMSIGHT_TRY_VOID(add(name));
    }
    fmt::print(stderr, "vmsight: {} rules on {} VMs; Ctrl-C ends\n", chosen_.size(),
               guests_.size());
    start_ns_ = monotonic_ns();
    Result<void> done = loop();
    for (const auto& guest : guests_) {
      if (auto finished = guest->finish(); !finished && done) done = std::move(finished);
    }
    for (const auto& sink : sinks_) static_cast<void>(sink->flush());
    return done;
  }

  Result<void> add(const std::string& name) {
    auto common = session_->common;
    common.vm = name;
    guests_.push_back(nullptr);
    auto& guest = guests_.back();
    GuestWatchOptions options{.attach = attach_options(common),
                              .engine = engine_,
                              .alarm = {},
                              .note = [](std::string_view text) {
                                fmt::print(stderr, "vmsight: note: {}\n", for_terminal(text));
                              }};
    const std::size_t index = guests_.size() - 1;
    options.alarm = [this, index](const Alarm& alarm, const Rule& rule) {
      deliver(alarm, rule, *guests_[index]);
    };
    guest = std::make_unique<GuestWatch>(name, set_, chosen_, std::move(options));
    return guest->open();
  }

  /// A VM that ends is said; the others are watched on. Without any it is over.
  Result<void> loop() {
    Result<void> last;
    while (!ended()) {
      std::size_t alive = 0;
      for (const auto& guest : guests_) {
        if (gone_.contains(guest.get())) continue;
        auto stepped = guest->step(guests_.size() == 1 ? 200ms : 20ms);
        if (stepped) {
          ++alive;
          continue;
        }
        gone_.insert(guest.get());
        last = std::move(stepped);
        fmt::print(stderr, "vmsight: {}: {}\n", for_terminal(guest->name()),
                   for_terminal(last.error().message));
      }
      if (alive == 0) return last;
    }
    return {};
  }

  bool ended() const {
    const double elapsed_s = static_cast<double>(monotonic_ns() - start_ns_) / 1e9;
    return told_to_end() || (count_ && alarms_ >= *count_) ||
           (duration_s_ && elapsed_s >= *duration_s_);
  }

  std::vector<std::string> more_vms_, wanted_, tags_, disabled_, outputs_;
  std::string check_, explain_, cases_, engine_ = "auto";
  bool list_ = false, ocsf_ = false;
  std::optional<std::uint64_t> count_;
  std::optional<double> duration_s_;

  Session* session_ = nullptr;
  RuleSet set_;
  std::vector<Rule> chosen_;
  std::vector<std::unique_ptr<AlarmSink>> sinks_;
  std::vector<std::unique_ptr<GuestWatch>> guests_;
  std::set<const GuestWatch*> gone_;
  std::uint64_t alarms_ = 0, start_ns_ = 0;
};

}  // namespace

extern const VerbInfo watch_verb{
    .name = "watch",
    .group = "Probes",
    .arguments = "VM... [options]",
    .summary = "Alarms of rules: silent, stuck or spinning programs, suspicious calls and changes",
    .examples =
        "  vmsight watch web1\n"
        "  vmsight watch web1 --rules rules/progress.yaml --json --duration 60\n",
    .vm = VmArgument::optional,
    .make = make_verb<Watch>,
};

}  // namespace vmsight
