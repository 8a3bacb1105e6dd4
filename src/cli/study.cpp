// vmsight study techniques VM: what each technique costs on this VM, measured.
// vmsight study probes VM: what a hit of a probe costs the guest, by engine and kind.
// vmsight study loop VM: looks on until told to stop; what others measure the impact of.
#include <atomic>
#include <csignal>

#include "cli/attach.h"
#include "render/escape.h"
#include "study/document.h"

namespace vmsight {
namespace {

std::atomic<bool> stop_wanted = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // set by a signal handler

constexpr const char* probes_group = "Probes";

void want_stop(int) { stop_wanted = true; }

class Study : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option(
           "STUDY", study_,
           "techniques: compare them; probes: what a hit costs; loop: only look on, until a signal")
        ->group("Arguments")
        ->required()
        ->check(CLI::IsMember({"techniques", "probes", "loop"}))
        ->type_name("");
    app.add_option("VM", vm_, "name, PID, UUID, QMP socket or libvirt domain")
        ->group("Arguments")
        ->required();
    app.add_option("--techniques", names_, "these only: names or classes, with commas")
        ->group(filter_group)
        ->delimiter(',')
        ->type_name("LIST");
    app.add_option("--rates", rates_, "measure at these rates too, in views a second")
        ->group(filter_group)
        ->delimiter(',')
        ->type_name("LIST")
        ->check(CLI::Range(0.001, 1e6));
    app.add_option("--seconds", seconds_,
                   "of a round (default 1); of the loop (default until a signal)")
        ->group(filter_group)
        ->type_name("S")
        ->check(CLI::Range(0.05, 86400.0));
    app.add_option(
           "--rounds", rounds_,
           fmt::format(
               "techniques: at maximum rate the best of so many; probes: runs of each (default {})",
               rounds_))
        ->group(filter_group)
        ->type_name("N")
        ->check(CLI::Range(1u, 1000u));
    app.add_option("--resume", resume_, "keep finished measurements in FILE, and go on from there")
        ->group(filter_group)
        ->type_name("FILE");
    app.add_option("--technique", technique_,
                   "loop: how to read guest memory: auto (default), or a name as `vmsight doctor "
                   "VM --all` lists them")
        ->group(filter_group)
        ->type_name("NAME");
    app.add_option(
           "--rate", rate_,
           "loop: how many times a second to read the guest; 0 (the default): as often as possible")
        ->group(filter_group)
        ->type_name("HZ")
        ->check(CLI::Range(0.0, 1e6));
    app.add_option("--call", call_,
                   "probes: a command on this host that makes the guest call SITE $CALLS times, "
                   "and then ends")
        ->group(probes_group)
        ->type_name("CMD");
    app.add_option("--site", site_,
                   "what it calls: a function that does next to nothing (default " + site_ + ")")
        ->group(probes_group)
        ->type_name("SITE");
    app.add_option("--calls", calls_, fmt::format("of a run (default {})", calls_))
        ->group(probes_group)
        ->type_name("N")
        ->check(CLI::Range(1u, 1'000'000'000u));
    app.add_option(
           "--slow-calls", slow_calls_,
           fmt::format("of a run of an engine that stops the guest at each hit (default {})",
                       slow_calls_))
        ->group(probes_group)
        ->type_name("N")
        ->check(CLI::Range(1u, 1'000'000u));
    app.add_option("--engines", engines_, "these only, with commas: kvm, gdbstub")
        ->group(probes_group)
        ->delimiter(',')
        ->type_name("LIST");
    app.add_option("--timeout", timeout_,
                   fmt::format("of a run, in seconds (default {})", timeout_))
        ->group(probes_group)
        ->type_name("S")
        ->check(CLI::Range(1.0, 86400.0));
  }

  Result<void> run(Session& session) override {
    VMSIGHT_TRY(const VmInfo info, find_vm(vm_));
    if (study_ == "probes") return probes(session, info);
    return study_ == "loop" ? loop(session, info) : techniques(session, info);
  }

 private:
  Result<void> techniques(Session& session, const VmInfo& info) {
    const TechniquesOptions options{
        .measure = {.seconds = seconds_.value_or(1),
                    .rounds = rounds_,
                    .cache_dir = default_cache_directory()},
        .names = names_,
        .rates = rates_,
        .resume_file = resume_,
        .progress = [](std::string_view what) { fmt::print(stderr, "{}\n", what); }};
    VMSIGHT_TRY(const auto rows, study_techniques(info, options));
    if (session.common.json) {
      session.out.print("{}\n", dump(techniques_document(info, options, rows)));
    } else {
      print_techniques(session.out, rows,
                       {.headers = session.common.headers, .width = session.width});
    }
    return {};
  }

  Result<void> probes(Session& session, const VmInfo& info) {
    if (call_.empty()) {
      return usage_error("study probes: what makes the guest call?",
                         "--call CMD: `vmsight study probes --help` has an example");
    }
    const ProbesOptions options{
        .call = call_,
        .site = site_,
        .engines = engines_,
        .calls = calls_,
        .slow_calls = slow_calls_,
        .rounds = rounds_,
        .seconds = timeout_,
        .cache_dir = default_cache_directory(),
        .progress = [](std::string_view what) { fmt::print(stderr, "{}\n", for_terminal(what)); }};
    VMSIGHT_TRY(const ProbesStudy study, study_probes(info, options));
    if (session.common.json) {
      session.out.print("{}\n", dump(probes_document(info, options, study)));
    } else {
      print_probes(session.out, options, study,
                   {.headers = session.common.headers, .width = session.width});
    }
    return {};
  }

  /// The first line says that it has begun; the last what was done.
  Result<void> loop(Session& session, const VmInfo& info) {
    std::signal(SIGTERM, want_stop);
    std::signal(SIGINT, want_stop);
    VMSIGHT_TRY(Watcher watcher, open_watcher(info, technique_, default_cache_directory()));
    VMSIGHT_TRY_VOID(warm_up(*watcher.reader));
    session.out.write("{\"ready\":true}\n");
    VMSIGHT_TRY_VOID(session.out.finish());
    VMSIGHT_TRY(const LoopOutcome outcome,
                run_loop(*watcher.reader,
                         {.rate = rate_, .seconds = seconds_.value_or(0), .stop = &stop_wanted}));
    session.out.print("{}\n",
                      dump(loop_document(watcher.guest.memory->technique(), rate_, outcome)));
    return {};
  }

  std::string study_, vm_, resume_, technique_ = "auto";
  std::vector<std::string> names_;
  std::vector<double> rates_;
  std::optional<double> seconds_;
  unsigned rounds_ = 5;
  std::string call_, site_ = ProbesOptions{}.site;
  std::vector<std::string> engines_;
  std::uint64_t calls_ = ProbesOptions{}.calls, slow_calls_ = ProbesOptions{}.slow_calls;
  double timeout_ = ProbesOptions{}.seconds;
  double rate_ = 0;
};

}  // namespace

extern const VerbInfo study_verb{
    .name = "study",
    .group = "Studies",
    .arguments = "techniques|probes|loop VM [options]",
    .summary = "Compare the techniques on a VM, or the kinds of probes: at what cost",
    .examples =
        "  vmsight study techniques web1 --rates 1,10,100\n"
        "  vmsight study probes web1 --call 'ssh web1 \"perl -e \\\"syscall(110, @ARGV) for "
        "1..$CALLS\\\" text\"'\n",
    .vm = VmArgument::none,
    .make = make_verb<Study>,
};

}  // namespace vmsight
