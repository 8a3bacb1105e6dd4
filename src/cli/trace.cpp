// vmsight trace VM SITE...: each time the guest passes a place in its code, with what it knew there.
#include <fcntl.h>
#include <csignal>
#include <set>

#include "base/clock.h"
#include "base/os.h"
#include "cli/attach.h"
#include "cli/background_output.h"
#include "cli/frame_names.h"
#include "cli/stop_signal.h"
#include "kernel/architecture.h"
#include "kernel/type_print.h"
#include "probe/flags.h"
#include "probe/system_calls.h"
#include "render/escape.h"
#include "render/strace.h"
#include "render/trace_text.h"
#include "vmsight/probe.h"

namespace vmsight {
namespace {

using namespace std::chrono_literals;

constexpr unsigned structure_depth = 1, structure_elements = 16;

class Trace : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("SITE", sites_,
                   "kprobe:FUNCTION[+OFFSET], kretprobe:..., uprobe:PATH:FUNCTION, uretprobe:...; "
                   "patterns (kprobe:tcp_*), addresses")
        ->group("Arguments");
    app.add_flag("--syscalls", system_calls_,
                 "all system calls with their results, signals and exits: strace of the guest")
        ->group("Arguments");
    app.add_option("-f,--filter", filter_,
                   "only where this holds: pid, tgid, comm, cpu, arguments, retval, duration; == "
                   "!= < > && || ( )")
        ->group(filter_group)
        ->type_name("EXPR");
    app.add_option("--field", field_texts_,
                   "tell this too at each event, and let --filter name it: NAME=EXPRESSION, a C "
                   "expression over the arguments, as ino=file->f_inode->i_ino")
        ->group(format_group)
        ->type_name("NAME=EXPR")
        ->allow_extra_args(false);
    app.add_option("-p,--pid", pid_, "only this process of the guest, not its children")
        ->group(filter_group)
        ->type_name("PID");
    declare_end(app, "events", count_, duration_s_);
    app.add_option("--rate-limit", rate_limit_,
                   "show at most so many events a second of each probe (default all)")
        ->group("Schedule")
        ->type_name("N")
        ->check(positive());
    app.add_option(
           "--storm-limit", storm_limit_,
           fmt::format("where hits do not stop the guest: disarm a probe that is hit more often in "
                       "a second (default {})",
                       storm_limit_))
        ->group("Schedule")
        ->type_name("N")
        ->check(positive());
    app.add_flag("--stats", stats_,
                 "counts, and histograms of how long calls took, at the end; no events")
        ->group(format_group);
    app.add_flag("--stack", stack_, "the kernel stack of each event")->group(format_group);
    app.add_flag("-v,--verbose", verbose_, "the structures that arguments point to")
        ->group(format_group);
    app.add_option("--perfetto", perfetto_path_, "a trace file for Perfetto or chrome://tracing")
        ->group(format_group)
        ->type_name("FILE");
    app.add_option(
           "--engine", engine_,
           fmt::format("how to probe: auto, {} (default auto)", fmt::join(engine_names(), ", ")))
        ->group("How")
        ->type_name("NAME");
    app.add_option("--symbols", symbols_files_,
                   "copy of a user program on this host, for its symbols; once for each program")
        ->group("How")
        ->type_name("FILE")
        ->allow_extra_args(false);
    app.add_option(
           "--text", texts_,
           "show these arguments of a user function (uprobe) as strings, not numbers: arg0,arg2")
        ->group("How")
        ->type_name("ARG,...")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(CLI::IsMember({"arg0", "arg1", "arg2", "arg3", "arg4", "arg5"}));
    app.add_flag("--list", list_,
                 "list the addresses and functions that SITE matches, and trace nothing")
        ->group("How");
  }

  Result<void> run(Session& session) override {
    if (sites_.empty() && !system_calls_) {
      return usage_error("trace: no site given",
                         "for example kprobe:do_sys_openat2, or --syscalls");
    }
    session_ = &session;
    VMSIGHT_TRY(fields_, parse_fields());
    return with_guest(session.common, [&](Guest& guest) -> Result<void> {
      if (!guest.vm) {
        return Error{.code = ErrorCode::unsupported, .message = "trace: an image does not run"};
      }
      guest_ = &guest;
      VMSIGHT_TRY(
          prober_,
          Prober::open({.vm = *guest.vm,
                        .kernel = *guest.kernel,
                        .memory = *guest.memory,
                        .engine = engine_,
                        .max_halt = session.common.wish.max_halt.value_or(default_max_halt)}));
      auto done = list_ ? list_sites() : trace();
      prober_.reset();  // before the memory and the kernel that it uses
      return done;
    });
  }

 private:
  std::uint8_t text_bits() const {
    unsigned bits = 0;
    for (const std::string& name : texts_) bits |= 1u << (name.back() - '0');
    return static_cast<std::uint8_t>(bits);
  }

  Result<std::vector<ProbeField>> parse_fields() const {
    std::vector<ProbeField> fields;
    for (const std::string& text : field_texts_) {
      const std::size_t equals = text.find('=');
      if (equals == text.npos || equals == 0)
        return usage_error("trace: --field is NAME=EXPRESSION",
                           "for example ino=file->f_inode->i_ino");
      fields.push_back({text.substr(0, equals), text.substr(equals + 1)});
    }
    return fields;
  }

  ProbeRequest request(std::string site) const {
    return {.site = std::move(site),
            .filter = filter_,
            .fields = fields_,
            .pid = pid_,
            .text_arguments = text_bits(),
            .symbols_files = symbols_files_,
            .counts_only = stats_,
            .standing = stack_ || verbose_,
            .rate_limit = rate_limit_,
            .storm_limit = storm_limit_,
            .where_filter_fits = system_calls_};
  }

  Result<std::vector<ProbeRequest>> requests() const {
    std::vector<ProbeRequest> all;
    for (const std::string& site : sites_) all.push_back(request(site));
    // Not every kernel has all of them.
    const auto add = [&](ProbeRequest wanted) {
      if (prober_->find(wanted)) all.push_back(std::move(wanted));
    };
    for (const std::string& pattern :
         system_calls_ ? system_call_patterns(*guest_->kernel) : std::vector<std::string>()) {
      const std::string prefix = pattern.substr(0, pattern.size() - 1);
      ProbeRequest returns = request("kretprobe:" + pattern);
      for (const char* name : {"exit", "exit_group"}) {  // these never return
        returns.without.push_back(prefix + name);
        add(request("kprobe:" + prefix + name));
      }
      add(std::move(returns));
    }
    if (system_calls_) {
      for (const std::string_view function : {signal_function, exit_function})
        add(request(fmt::format("kprobe:{}", function)));
    }
    if (all.empty()) {
      return Error{.code = ErrorCode::unsupported,
                   .message = "trace: no system call of this kernel can be probed",
                   .hint = "vmsight sym VM '*sys_open*' shows what its functions are called"};
    }
    return all;
  }

  Result<void> list_sites() {
    VMSIGHT_TRY(const auto wanted, requests());
    for (const ProbeRequest& request : wanted) {
      VMSIGHT_TRY(const auto found, prober_->find(request));
      for (const ProbeSite& site : found) print_site(site);
    }
    return {};
  }

  void print_site(const ProbeSite& site) {
    Output& out = session_->out;
    if (session_->common.json) {
      Json places = Json::array();
      for (const UserPlace& place : site.places) {
        places.push_back({{"tgid", place.tgid}, {"address", json_address(place.address.raw())}});
      }
      out.print(
          "{}\n",
          dump({{"site", json_text(to_string(site))},
                {"address", site.user ? Json(nullptr) : Json(json_address(site.address.raw()))},
                {"size", site.size},
                {"places", std::move(places)}}));
      return;
    }
    if (!site.user) {
      out.print("{:#x}  {}\n", site.address.raw(), for_terminal(to_string(site)));
      return;
    }
    for (const UserPlace& place : site.places) {
      out.print("{:#x}  {}  (process {})\n", place.address.raw(), for_terminal(to_string(site)),
                place.tgid);
    }
  }

  Result<void> trace() {
    end_orderly_on({SIGINT, SIGTERM, SIGHUP});
    ::signal(SIGTSTP, SIG_IGN);  // a guest that comes to a breakpoint waits for us
    VMSIGHT_TRY_VOID(prepare_extras());
    VMSIGHT_TRY_VOID(open_perfetto());
    BackgroundOutput lines(STDOUT_FILENO);
    lines_ = &lines;
    VMSIGHT_TRY(const auto wanted, requests());
    VMSIGHT_TRY_VOID(prober_->add(wanted, [this](const ProbeEvent& event) { show(event); }));
    start_ns_ = monotonic_ns();
    VMSIGHT_TRY_VOID(announce());
    Result<void> done;
    while (done && !ended()) {
      auto polled = prober_->poll(100ms);
      if (!polled)
        done = std::move(polled).error();
      else
        done = look_for_ends();
    }
    auto finished = prober_->finish();  // the guest is free before anybody waits for a reader
    auto probes = prober_->list();
    if (probes) finish(*probes);
    VMSIGHT_TRY_VOID(lines.finish());
    VMSIGHT_TRY_VOID(std::move(done));
    return finished;
  }

  /// Once a second. What is armed no more is told at once; without a probe left it is over.
  Result<void> look_for_ends() {
    const std::uint64_t now = monotonic_ns();
    if (now - looked_ns_ < 1'000'000'000) return {};
    looked_ns_ = now;
    VMSIGHT_TRY(const auto probes, prober_->list());
    all_ended_ = true;
    for (const ProbeInfo& probe : probes) {
      const bool ended = probe.counts.stormed || !probe.ended.empty();
      all_ended_ = all_ended_ && ended;
      if (ended && ended_.insert(probe.id).second) tell_end(probe);
      if (probe.site.replaced && replaced_.insert(probe.id).second) {
        fmt::print(
            stderr,
            "vmsight: note: {}: the guest's programs run another file of this name by now, whose "
            "calls are not seen\n",
            for_terminal(to_string(probe.site)));
      }
    }
    return {};
  }

  void tell_end(const ProbeInfo& probe) const {
    const std::string site = for_terminal(to_string(probe.site));
    if (!probe.ended.empty()) {
      fmt::print(stderr, "vmsight: note: {} is probed no more: {}\n", site, probe.ended);
      return;
    }
    fmt::print(stderr,
               "vmsight: note: {} was hit more than {} times a second and has been disarmed "
               "(--storm-limit)\n",
               site, storm_limit_);
  }

  Result<void> prepare_extras() {
    if (!stack_) return {};
    Reader reader(*guest_->memory, guest_->kernel->space());
    VMSIGHT_TRY(unwinder_,
                guest_->kernel->space().architecture().make_unwinder(*guest_->kernel, reader));
    VMSIGHT_TRY(symbols_, guest_->kernel->symbols());
    return {};
  }

  Result<void> open_perfetto() {
    if (perfetto_path_.empty()) return {};
    perfetto_fd_ =
        UniqueFd(::open(perfetto_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!perfetto_fd_) return os_error(errno, "write " + perfetto_path_);
    perfetto_out_ = std::make_unique<Output>(perfetto_fd_.get());
    perfetto_.emplace(*perfetto_out_);
    return {};
  }

  Result<void> announce() {
    VMSIGHT_TRY(const auto probes, prober_->list());
    if (session_->common.json) {
      Json list = Json::array();
      for (const ProbeInfo& probe : probes) {
        const Json whole = to_json(probe);
        list.push_back({{"probe", whole["probe"]},
                        {"site", whole["site"]},
                        {"address", whole["address"]},
                        {"problem", whole["problem"]}});
      }
      lines_->write(dump({{"schema", "vmsight.trace/1"},
                          {"vm", to_json(summary_of(*guest_))},
                          {"engine", prober_->abilities().name},
                          {"probes", std::move(list)}}) +
                    "\n");
      return {};
    }
    for (const ProbeInfo& probe : probes) {
      if (!probe.problem.empty() && !probe.site.user && probes.size() < 8) {
        fmt::print(stderr, "vmsight: note: {}: {}\n", for_terminal(to_string(probe.site)),
                   probe.problem);
      }
    }
    if (const std::string note = prober_->engine_note(); !note.empty()) {
      fmt::print(stderr, "vmsight: note: by engine {}: {}\n", prober_->abilities().name, note);
    }
    if (const std::string note = prober_->left_out_note(); !note.empty()) {
      fmt::print(stderr, "vmsight: note: {}\n", note);
    }
    const auto away = std::count_if(probes.begin(), probes.end(),
                                    [](const ProbeInfo& probe) { return probe.counts.absent; });
    if (away != 0)
      fmt::print(stderr, "vmsight: note: {} armed when the guest has their pages in memory\n",
                 away);
    if (!stats_ && session_->common.headers) lines_->write(trace_header());
    fmt::print(stderr, "vmsight: {} {} armed by {}; Ctrl-C ends\n", probes.size(),
               probes.size() == 1 ? "probe" : "probes", prober_->abilities().name);
    return {};
  }

  bool ended() const {
    const double elapsed_s = static_cast<double>(monotonic_ns() - start_ns_) / 1e9;
    return told_to_end() || all_ended_ || lines_->failed() || (count_ && shown_ >= *count_) ||
           (duration_s_ && elapsed_s >= *duration_s_);
  }

  void show(const ProbeEvent& event) {
    if (count_ && shown_ >= *count_) return;
    ++shown_;
    if (perfetto_) perfetto_->add(event);
    const TraceExtras extras = extras_of(event);
    lines_->write(session_->common.json ? dump(trace_json(event, extras)) + "\n"
                                        : trace_line(event, extras, start_ns_, style()));
  }

  /// Beside other sites, names of arguments are shown everywhere.
  TraceStyle style() const {
    return system_calls_ && sites_.empty() ? TraceStyle::strace : TraceStyle::named;
  }

  TraceExtras extras_of(const ProbeEvent& event) {
    TraceExtras extras;
    if (stack_) add_stack(event, extras);
    if (!verbose_) return extras;
    for (const ProbeArgument& argument : event.arguments) {
      if (argument.structure.empty() || argument.number >> 63 == 0) continue;
      auto printed = evaluate(*guest_->kernel, event.memory,
                              {.expression = std::string(argument.structure),
                               .address = GuestVirt(argument.number),
                               .depth = structure_depth,
                               .max_elements = structure_elements});
      if (!printed) continue;
      name_members(*printed, argument.structure);
      extras.structures.push_back({.argument = std::string(argument.name),
                                   .text = to_text(*printed),
                                   .json = to_json(*printed)["value"]});
    }
    return extras;
  }

  /// In the text; JSON has the numbers.
  static void name_members(Printed& printed, std::string_view structure) {
    constexpr std::string_view keyword = "struct ";
    if (structure.starts_with(keyword)) structure.remove_prefix(keyword.size());
    for (TypedValue& member : printed.value.children) {
      const FlagKind kind = member_flags(structure, member.name);
      if (kind == FlagKind::none || member.kind == TypedValue::Kind::unreadable) continue;
      if (std::string names = flag_names(kind, member.number); !names.empty())
        member.text = std::move(names);
    }
  }

  void add_stack(const ProbeEvent& event, TraceExtras& extras) {
    const ProbeRegisters& registers = event.hit.registers;
    if (event.hit.task.task.raw() == 0 || event.site.user) {
      extras.stack_problem = event.site.user ? "not in the kernel" : "no task";
      return;
    }
    const auto unwound = unwinder_->unwind(event.memory, event.hit.task.task,
                                           {.ip = registers.rip,
                                            .sp = registers.general[reg::rsp],
                                            .bp = registers.general[reg::rbp]});
    event.memory.clear_fault();
    if (!unwound) {
      extras.stack_problem = unwound.error().message;
      return;
    }
    for (const Frame& frame : unwound->frames) {
      extras.stack.push_back(name_frame(*guest_->kernel, symbols_, frame));
    }
    if (!unwound->complete) extras.stack_problem = unwound->stopped;
  }

  void finish(const std::vector<ProbeInfo>& probes) {
    if (perfetto_) {
      perfetto_->end();
      auto written = perfetto_out_->finish();
      if (!written)
        fmt::print(stderr, "vmsight: {}: {}\n", perfetto_path_, written.error().message);
    }
    if (session_->common.json) {
      Json list = Json::array();
      for (const ProbeInfo& probe : probes) list.push_back(to_json(probe));
      lines_->write(dump({{"counts", std::move(list)},
                          {"foreign", prober_->foreign()},
                          {"late", prober_->late()},
                          {"dropped", lines_->dropped()}}) +
                    "\n");
      return;
    }
    if (stats_) {
      Output text;
      print_probe_counts(text, probes);
      lines_->write(text.text());
    }
    account(probes);
  }

  void account(const std::vector<ProbeInfo>& probes) const {
    ProbeCounts sum;
    for (const ProbeInfo& probe : probes) {
      sum.hits += probe.counts.hits;
      sum.filtered += probe.counts.filtered;
      sum.lost += probe.counts.lost;
      sum.missed_returns += probe.counts.missed_returns;
      sum.rate_limited += probe.counts.rate_limited;
      sum.foreign += probe.counts.foreign;
      sum.reloads += probe.counts.reloads;
    }
    sum.lost += lines_->dropped();
    fmt::print(stderr, "vmsight: {} hits, {} shown, {} filtered, {} lost", sum.hits, shown_,
               sum.filtered, sum.lost);
    if (sum.missed_returns != 0) fmt::print(stderr, ", {} returns not seen", sum.missed_returns);
    if (sum.rate_limited != 0) fmt::print(stderr, ", {} above the rate limit", sum.rate_limited);
    if (sum.foreign != 0) fmt::print(stderr, ", {} of other processes", sum.foreign);
    if (const auto foreign = prober_->foreign(); foreign != 0)
      fmt::print(stderr, ", {} traps of nobody", foreign);
    if (const auto late = prober_->late(); late != 0)
      fmt::print(stderr, ", {} later than in their order", late);
    fmt::print(stderr, "\n");
    if (sum.reloads == 0) return;
    fmt::print(stderr,
               "vmsight: note: code came into the guest's memory {} times and was probed half a "
               "second later, or sooner: "
               "calls before are not known\n",
               sum.reloads);
  }

  std::vector<std::string> field_texts_;
  std::vector<ProbeField> fields_;
  std::vector<std::string> sites_, texts_;
  std::vector<std::string> symbols_files_;
  std::string filter_, perfetto_path_, engine_ = "auto";
  std::optional<std::int32_t> pid_;
  std::optional<std::uint64_t> count_;
  std::optional<double> duration_s_;
  std::uint64_t rate_limit_ = 0, storm_limit_ = default_storm_limit;
  std::set<ProbeId> ended_, replaced_;
  std::uint64_t looked_ns_ = monotonic_ns();
  bool all_ended_ = false;
  bool system_calls_ = false, stats_ = false, stack_ = false, verbose_ = false, list_ = false;

  Session* session_ = nullptr;
  Guest* guest_ = nullptr;
  std::unique_ptr<Prober> prober_;
  BackgroundOutput* lines_ = nullptr;
  std::unique_ptr<StackUnwinder> unwinder_;
  std::span<const Symbol> symbols_;
  UniqueFd perfetto_fd_;
  std::unique_ptr<Output> perfetto_out_;
  std::optional<PerfettoFile> perfetto_;
  std::uint64_t start_ns_ = 0, shown_ = 0;
};

}  // namespace

extern const VerbInfo trace_verb{
    .name = "trace",
    .group = "Probes",
    .arguments = "VM SITE... [options]",
    .summary = "Each call of functions of the guest's kernel and programs, with arguments",
    .examples =
        "  vmsight trace web1 kprobe:do_sys_openat2\n"
        "  vmsight trace web1 kretprobe:vfs_read --filter 'comm == nginx && retval > 4096'\n"
        "  vmsight trace web1 --syscalls --pid 412\n"
        "  vmsight trace web1 --syscalls --filter 'retval < 0' --duration 10\n"
        "  vmsight trace web1 'kretprobe:ext4_*' --stats --duration 10\n",
    .keeps_rights = "arms probes",
    .make = make_verb<Trace>,
};

}  // namespace vmsight
