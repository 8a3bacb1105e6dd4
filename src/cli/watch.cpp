// vmsight watch VM...: rules that run on guests, and the alarms that they raise.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <future>

#include "base/clock.h"
#include "base/os.h"
#include "cli/attach.h"
#include "cli/stop_signal.h"
#include "cli/watch_actions.h"
#include "cli/watch_plan.h"
#include "cli/watch_rules.h"
#include "cli/watch_status.h"
#include "detect/sink.h"
#include "host/process.h"
#include "render/escape.h"
#include "render/json.h"
#include "watch/guest_watch.h"

namespace vmsight {
namespace {

using namespace detect;
using namespace std::chrono_literals;

constexpr const char* rules_group = "Rules";
constexpr const char* alarms_group = "Alarms";
constexpr const char* actions_group = "Actions";
constexpr std::uint64_t search_ns = 2'000'000'000;      // between looks for VMs that have started
constexpr std::uint64_t retry_open_ns = 5'000'000'000;  // of a VM that cannot be watched yet

void warn(std::string_view what, std::string_view kind = "warning") {
  fmt::print(stderr, "vmsight: {}: {}\n", kind, for_terminal(what));
}

/// Of this process: what it has used of CPUs, and its memory.
std::uint64_t cpu_time_ns() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const auto ns = [](const timeval& time) {
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(time.tv_usec) * 1'000;
  };
  return ns(used.ru_utime) + ns(used.ru_stime);
}
std::uint64_t resident_bytes() {
  std::uint64_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

/// As nohup has it.
bool ignores_hangups() {
  struct sigaction now {};
  return ::sigaction(SIGHUP, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

bool has_terminal() {
  return static_cast<bool>(UniqueFd(::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY)));
}

/// Where alarms go, in the process that delivers them.
struct SinkChoice {
  std::vector<std::string> outputs;
  AlarmFormat format = AlarmFormat::text;  // of standard output

  AlarmFormat file_format() const {
    return format == AlarmFormat::ocsf ? AlarmFormat::ocsf : AlarmFormat::json;
  }

  Result<std::unique_ptr<AlarmSink>> open(const std::string& output) const {
    const auto behind = [&](std::string_view kind) -> std::optional<std::string> {
      if (!output.starts_with(kind)) return std::nullopt;
      return output.substr(kind.size());
    };
    if (output == "syslog") return open_syslog_sink({});
    if (output == "journald") return open_journald_sink({});
    if (const auto line = behind("command:")) return open_command_sink({.shell_line = *line});
    if (const auto address = behind("alertmanager:"))
      return open_alertmanager_sink({.address = *address});
    return open_file_sink(output, file_format());
  }

  Result<std::vector<std::unique_ptr<AlarmSink>>> open_all() const {
    std::vector<std::unique_ptr<AlarmSink>> sinks;
    sinks.push_back(make_descriptor_sink(STDOUT_FILENO, format));
    for (const std::string& output : outputs) {
      VMSIGHT_TRY(auto sink, open(output));
      sinks.push_back(std::move(sink));
    }
    VMSIGHT_TRY(auto commands, open_requested_commands_sink());
    sinks.push_back(std::move(commands));
    return sinks;
  }
};

class Watch : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("VMS", more_vms_, "further VMs")->group("Arguments")->type_name("");
    app.add_flag("--all", all_, "all VMs of this host, also those that start later");
    declare_rules(app);
    declare_alarms(app);
    app.add_option("--engine", engine_,
                   fmt::format("how to probe: auto, {}", fmt::join(engine_names(), ", ")))
        ->group("How")
        ->type_name("NAME");
    app.add_flag("--dry-run", dry_run_,
                 "say what would be armed and read in each VM, and at what cost, and end")
        ->group("How");
    app.add_flag("--status", status_,
                 "say what running watches do in the VM, or in all: rules, sites, hits, cost")
        ->group("How");
    declare_end(app, "alarms", count_, duration_s_);
  }

  Result<void> run(Session& session) override {
    session_ = &session;
    if (status_) return show_watch_status(session);
    if (!check_.empty()) return check_rules(session, check_);
    VMSIGHT_TRY(rules_, choose_rules(choice_));
    for (const Error& error : rules_.set->errors) warn(error.message);
    if (!explain_.empty()) return explain_rule(session, *rules_.set, explain_);
    if (rules_.rules.empty()) {
      return usage_error("watch: no rules to run", "--rules names files, directories or rules");
    }
    if (list_) {
      list_rules(session, rules_);
      return {};
    }
    if (session.common.vm.empty() != all_) {
      return usage_error(all_ ? "watch: --all, and a VM besides" : "watch: no VM given",
                         "give names of VMs, as `vmsight list` shows them, or --all");
    }
    return dry_run_ ? dry_run() : watch();
  }

 private:
  void declare_rules(CLI::App& app) {
    app.add_option(
           "-r,--rules", choice_.wanted,
           "file or directory of rules, or the name of a rule that ships; default: all that "
           "ship and are enabled, and /etc/vmsight/rules.d. SIGHUP has them read again")
        ->group(rules_group)
        ->type_name("FILE|DIR|NAME")
        ->allow_extra_args(false);
    app.add_option("--tag", choice_.tags, "only rules that have this tag")
        ->group(rules_group)
        ->type_name("TAG")
        ->allow_extra_args(false);
    app.add_option("--disable", choice_.disabled, "not the rules of this name or tag")
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
  }

  void declare_alarms(CLI::App& app) {
    app.add_option(
           "-o,--output", outputs_,
           "where alarms go besides standard output: a file, syslog, journald, "
           "alertmanager:HOST:PORT, or command:LINE, which gets each alarm as JSON on its standard "
           "input")
        ->group(alarms_group)
        ->type_name("WHERE")
        ->allow_extra_args(false);
    app.add_flag("--ocsf", ocsf_, "alarms as OCSF Detection Findings, a line each")
        ->group(alarms_group);
    app.add_option(
           "--allow", action_options_.allowed,
           "take these actions where a rule asks for them: pause the VM for good, take a "
           "snapshot of its memory, run a command of the rule's, have the call return EPERM")
        ->group(actions_group)
        ->type_name("pause,snapshot,run,deny")
        ->delimiter(',')
        ->allow_extra_args(false);
    app.add_option("--cases", action_options_.cases,
                   "directory for the cases and snapshots that rules ask for; a case has alarm, "
                   "state, kernel log and stacks")
        ->group(actions_group)
        ->type_name("DIR");
    app.add_flag("--case-core", action_options_.case_core,
                 "each case has a core of the memory, too")
        ->group(actions_group);
  }

  // ---- alarms ------------------------------------------------------------------------------

  AlarmFormat format() const {
    if (ocsf_) return AlarmFormat::ocsf;
    return session_->common.json ? AlarmFormat::json : AlarmFormat::text;
  }

  void deliver(Alarm alarm, const Rule& rule, GuestWatch& guest) {
    ++alarms_;
    const auto note = [](std::string_view what) { warn(what, "note"); };
    actions_->before(alarm, rule, guest, note);
    if (auto done = sink_->deliver(alarm); !done) warn(done.error().message);
    actions_->after(alarm, guest, note);
  }

  // ---- guests ------------------------------------------------------------------------------

  struct Watched {
    ProcessId vm;  // of --all
    std::unique_ptr<GuestWatch> guest;
    std::future<Result<void>> opening;  // while it is attached to
    std::uint64_t rules_version = 0;    // that it runs
    bool is_open = false, has_ended = false;
    std::uint64_t next_try_ns = 0;  // of one that could not be opened
    std::string said;               // why
  };

  GuestWatchOptions guest_options(Watched& watched, const std::string& name) {
    auto common = session_->common;
    common.vm = name;
    return {.attach = attach_options(common),
            .engine = engine_,
            .may_deny = actions_ && actions_->may_deny(),
            .alarm = [this, &watched](const Alarm& alarm,
                                      const Rule& rule) { deliver(alarm, rule, *watched.guest); },
            .note = [](std::string_view text) { warn(text, "note"); }};
  }

  Watched& add(const std::string& name) {
    guests_.push_back(std::make_unique<Watched>());
    Watched& watched = *guests_.back();
    begin(watched, name);
    return watched;
  }
  void begin(Watched& watched, const std::string& name) {
    watched.guest = std::make_unique<GuestWatch>(name, rules_, guest_options(watched, name));
    watched.rules_version = rules_version_;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> all;
    if (!session_->common.vm.empty()) all.push_back(session_->common.vm);
    all.insert(all.end(), more_vms_.begin(), more_vms_.end());
    return all;
  }

  Result<void> dry_run() {
    std::vector<std::string> wanted = names();
    if (all_) {
      VMSIGHT_TRY(const VmList list, list_vms());
      for (const VmInfo& vm : list.vms) wanted.push_back(std::to_string(vm.pid));
    }
    nlohmann::json plans = nlohmann::json::array();
    for (const std::string& name : wanted) {
      VMSIGHT_TRY(auto plan, add(name).guest->plan());
      if (!session_->common.json) print_plan(*session_, plan);
      plans.push_back(std::move(plan));
    }
    if (session_->common.json) {
      session_->out.print(
          "{}\n",
          nlohmann::json{{"schema", "vmsight.watch.plan/1"}, {"vms", std::move(plans)}}.dump(
              -1, ' ', true, nlohmann::json::error_handler_t::replace));
    }
    return {};
  }

  /// What delivers alarms is forked first: it has nothing of what follows.
  Result<void> watch() {
    end_orderly_on({SIGINT, SIGTERM});
    had_terminal_ = has_terminal() && !ignores_hangups();
    reload_on(SIGHUP);
    ::signal(SIGTSTP, SIG_IGN);  // a guest that comes to a breakpoint waits for us
    VMSIGHT_TRY(actions_, WatchActions::create(action_options_));
    const SinkChoice sinks{.outputs = outputs_, .format = format()};
    VMSIGHT_TRY(sink_, open_process_sink([&] { return sinks.open_all(); }));
    say_refusals(rules_.rules, {});
    for (const std::string& name : names()) {
      Watched& watched = add(name);
      VMSIGHT_TRY_VOID(watched.guest->open());
      watched.is_open = true;
    }
    auto socket = WatchStatusSocket::open();
    if (!socket) warn("--status will not see this watch: " + socket.error().message, "note");
    start_ns_ = monotonic_ns();
    rules_read_ns_ = wall_clock_ns();
    if (all_) search();
    fmt::print(stderr, "vmsight: {} rules on {} VMs; Ctrl-C ends\n", rules_.rules.size(),
               guests_.size());
    Result<void> done = loop(socket ? &*socket : nullptr);
    return finish(std::move(done));
  }

  Result<void> finish(Result<void> done) {
    for (const auto& watched : guests_) {
      if (watched->opening.valid()) watched->is_open = watched->opening.get().has_value();
      if (!watched->is_open) continue;
      if (auto finished = watched->guest->finish(); !finished && done && !watched->has_ended)
        done = std::move(finished);
    }
    if (auto flushed = sink_->flush(); !flushed) warn(flushed.error().message);
    if (const auto lost = sink_->lost(); lost != 0)
      warn(fmt::format("{} alarms could not be delivered", lost));
    return done;
  }

  /// A VM that ends is said; the others are watched on. Without any it is over, unless more may come.
  Result<void> loop(const WatchStatusSocket* socket) {
    Result<void> last;
    while (!ended()) {
      if (take_reload() && !reload()) return {};
      if (socket) socket->serve([this] { return status(); });
      if (all_) search();
      const std::size_t alive = step_all(last);
      if (alive != 0) continue;
      if (!all_) return last;
      ::usleep(200'000);
    }
    return {};
  }

  /// How many there are that run.
  std::size_t step_all(Result<void>& last) {
    std::size_t alive = 0;
    for (const auto& watched : guests_) {
      if (!watched->is_open || watched->has_ended) continue;
      auto stepped = watched->guest->step(guests_.size() == 1 && !all_ ? 200ms : 20ms);
      if (stepped) {
        ++alive;
        continue;
      }
      watched->has_ended = true;
      last = std::move(stepped);
      fmt::print(stderr, "vmsight: {}: {}\n", for_terminal(watched->guest->name()),
                 for_terminal(last.error().message));
    }
    return alive;
  }

  // ---- all VMs of the host -----------------------------------------------------------------

  /// Begins with VMs that have started, goes on with those that could not be watched before, and forgets
  /// those that have ended. Attaching is done in a thread: hits of the others do not wait for it.
  void search() {
    const std::uint64_t now_ns = monotonic_ns();
    for (const auto& watched : guests_) look_at_opening(*watched, now_ns);
    if (now_ns < next_search_ns_) return;
    next_search_ns_ = now_ns + search_ns;
    std::erase_if(guests_, [](const auto& watched) {
      const bool is_over = !watched->opening.valid() && has_ended(watched->vm);
      if (is_over && watched->is_open && !watched->has_ended)  // before a step has found it out
        fmt::print(stderr, "vmsight: {}: the VM has ended\n", for_terminal(watched->guest->name()));
      return is_over;
    });
    const auto list = list_vms();
    for (const VmInfo& vm : list ? list->vms : std::vector<VmInfo>()) {
      const bool is_known = std::ranges::any_of(guests_, [&](const auto& watched) {
        return watched->vm == ProcessId{vm.pid, vm.start_time};
      });
      if (is_known) continue;
      Watched& watched = add(std::to_string(vm.pid));
      watched.vm = {vm.pid, vm.start_time};
      warn(fmt::format("{} (pid {}) has started", vm.name, vm.pid), "note");
      open_in_thread(watched);
    }
  }

  void open_in_thread(Watched& watched) {
    watched.has_ended = watched.is_open = false;
    watched.opening =
        std::async(std::launch::async, [guest = watched.guest.get()] { return guest->open(); });
  }

  void look_at_opening(Watched& watched, std::uint64_t now_ns) {
    if (watched.opening.valid()) {
      if (watched.opening.wait_for(0s) != std::future_status::ready) return;
      const auto opened = watched.opening.get();
      watched.is_open = opened.has_value();
      watched.next_try_ns = now_ns + retry_open_ns;
      if (opened) {
        warn(fmt::format("{} (pid {}) is watched", watched.guest->name(), watched.vm.pid), "note");
        watched.said.clear();
        if (watched.rules_version != rules_version_) replace_rules(watched);
      } else if (std::exchange(watched.said, opened.error().message) != watched.said) {
        warn(fmt::format("{} (pid {}) cannot be watched yet: {}", watched.guest->name(),
                         watched.vm.pid, watched.said),
             "note");
      }
      return;
    }
    if (watched.is_open && watched.has_ended) {  // though its process may go on
      watched.is_open = false;
      watched.next_try_ns = now_ns + retry_open_ns;
    }
    if (watched.is_open || now_ns < watched.next_try_ns || has_ended(watched.vm)) return;
    begin(watched, std::to_string(watched.vm.pid));
    open_in_thread(watched);
  }

  // ---- rules that are read again -----------------------------------------------------------

  /// False if it is the terminal that has gone, and with it whoever wanted us.
  bool reload() {
    if (had_terminal_ && !has_terminal()) return false;
    if (auto reopened = sink_->reopen(); !reopened) warn(reopened.error().message);
    auto chosen = choose_rules_again(choice_);
    if (chosen && chosen->rules.empty())
      chosen = Error{.code = ErrorCode::bad_data, .message = "there are none"};
    if (!chosen) {
      warn("rules were not read again, the old ones run on: " + chosen.error().message);
      return true;
    }
    const std::vector<Rule> before = std::exchange(rules_.rules, std::move(chosen->rules));
    rules_.set = std::move(chosen->set);
    ++rules_version_;
    rules_read_ns_ = wall_clock_ns();
    say_refusals(rules_.rules, before);
    for (const auto& watched : guests_) {
      if (watched->is_open && !watched->has_ended) replace_rules(*watched);
    }
    return true;
  }

  void replace_rules(Watched& watched) {
    const auto changes = watched.guest->replace_rules(rules_);
    watched.rules_version = rules_version_;
    if (!changes) return warn(changes.error().message);
    fmt::print(stderr,
               "vmsight: note: {}: rules were read again: {} added, {} changed, {} removed, {} as "
               "before\n",
               for_terminal(watched.guest->name()), changes->added, changes->changed,
               changes->removed, changes->unchanged);
  }

  /// Of each rule once, now, and not at each alarm.
  void say_refusals(const std::vector<Rule>& rules, const std::vector<Rule>& said) const {
    for (const Rule& rule : rules) {
      const bool was_said = std::ranges::any_of(said, [&](const Rule& before) {
        return before.name == rule.name && before.actions == rule.actions;
      });
      if (was_said) continue;
      for (const std::string& refusal : actions_->refusals(rule)) warn(refusal);
    }
  }

  // ---- what it says of itself --------------------------------------------------------------

  std::string status() const {
    nlohmann::json vms = nlohmann::json::array();
    for (const auto& watched : guests_) {
      if (watched->is_open && !watched->has_ended) vms.push_back(watched->guest->status());
    }
    return nlohmann::json{{"pid", ::getpid()},
                          {"rules", rules_.rules.size()},
                          {"rules_read", rfc3339(rules_read_ns_)},
                          {"runs_ns", monotonic_ns() - start_ns_},
                          {"alarms", alarms_},
                          {"lost", sink_->lost()},
                          {"cpu_ns", cpu_time_ns()},
                          {"memory_bytes", resident_bytes()},
                          {"vms", std::move(vms)}}
        .dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  }

  bool ended() const {
    const double elapsed_s = static_cast<double>(monotonic_ns() - start_ns_) / 1e9;
    return told_to_end() || (count_ && alarms_ >= *count_) ||
           (duration_s_ && elapsed_s >= *duration_s_);
  }

  std::vector<std::string> more_vms_, outputs_;
  RuleChoice choice_;
  ActionOptions action_options_;
  std::string check_, explain_, engine_ = "auto";
  bool list_ = false, ocsf_ = false, all_ = false, dry_run_ = false, status_ = false;
  std::optional<std::uint64_t> count_;
  std::optional<double> duration_s_;

  Session* session_ = nullptr;
  WatchedRules rules_;
  std::uint64_t rules_version_ = 0, rules_read_ns_ = 0;
  std::optional<WatchActions> actions_;
  std::unique_ptr<AlarmSink> sink_;
  std::vector<std::unique_ptr<Watched>> guests_;
  bool had_terminal_ = false;
  std::uint64_t alarms_ = 0, start_ns_ = 0, next_search_ns_ = 0;
};

}  // namespace

extern const VerbInfo watch_verb{
    .name = "watch",
    .group = "Probes",
    .arguments = "VM... [options]",
    .summary = "Alarms of rules: silent, stuck or spinning programs, suspicious calls and changes",
    .examples =
        "  vmsight watch web1\n"
        "  vmsight watch web1 --rules rules/progress.yaml --json --duration 60\n"
        "  vmsight watch --all --allow pause,run --cases /var/lib/vmsight/cases -o journald\n"
        "  vmsight watch web1 --dry-run\n"
        "  vmsight watch --status\n",
    .vm = VmArgument::optional,
    .keeps_rights = "arms probes, and attaches to VMs that come later",
    .make = make_verb<Watch>,
};

}  // namespace vmsight
