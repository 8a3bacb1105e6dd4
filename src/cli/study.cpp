// vmsight study techniques VM: what each technique costs on this VM, measured.
// vmsight study probes VM: what a hit of a probe costs the guest, by engine and kind.
// vmsight study consistency VM: how often views contradict the guest, by way of reading.
// vmsight study loop VM: looks on until told to stop; what others measure the impact of.
//
// The verb declares what can be asked for; vmsight-study (src/study) does it, in its place.
#include "study/options.h"

#include <unistd.h>

#include <cerrno>

#include "base/own_program.h"
#include "cli/verb.h"

namespace vmsight {
namespace {

constexpr const char* probes_group = "Probes";

/// Returns only if the program cannot be started.
Error become(const std::string& program, std::vector<std::string> words) {
  std::string name = study_program;
  std::vector<char*> arguments{name.data()};
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  ::execv(program.c_str(), arguments.data());
  return os_error(errno, "start " + program);
}

class Study : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("STUDY", options_.study,
                   "techniques: compare them; probes: what a hit costs; consistency: how far views "
                   "can be believed; loop: only look "
                   "on, until a signal")
        ->group("Arguments")
        ->required()
        ->check(CLI::IsMember({"techniques", "probes", "consistency", "loop"}))
        ->type_name("");
    app.add_option("VM", options_.vm, "name, PID, UUID, QMP socket or libvirt domain")
        ->group("Arguments")
        ->required();
    app.add_option("--techniques", options_.techniques, "these only: names or classes, with commas")
        ->group(filter_group)
        ->delimiter(',')
        ->type_name("LIST");
    app.add_option("--rates", options_.rates, "measure at these rates too, in views a second")
        ->group(filter_group)
        ->delimiter(',')
        ->type_name("LIST")
        ->check(CLI::Range(0.001, 1e6));
    app.add_option("--cpu", options_.cpu,
                   "techniques: measure with so many percent of a core, too, as a busy host gives; "
                   "loop: look on with these")
        ->group(filter_group)
        ->delimiter(',')
        ->type_name("LIST")
        ->check(CLI::Range(1.0, 100.0));
    app.add_option("--seconds", options_.seconds,
                   "of a round (default 1); of the loop (default until a signal)")
        ->group(filter_group)
        ->type_name("S")
        ->check(CLI::Range(0.05, 86400.0));
    app.add_option(
           "--rounds", options_.rounds,
           fmt::format(
               "techniques: at maximum rate the best of so many; probes: runs of each (default {})",
               options_.rounds))
        ->group(filter_group)
        ->type_name("N")
        ->check(CLI::Range(1u, 1000u));
    app.add_option("--views", options_.views,
                   fmt::format("consistency: by each way of reading (default {})", options_.views))
        ->group(filter_group)
        ->type_name("N")
        ->check(CLI::Range(1u, 10'000'000u));
    app.add_option("--resume", options_.resume,
                   "keep finished measurements in FILE, and go on from there")
        ->group(filter_group)
        ->type_name("FILE");
    app.add_option("--technique", options_.technique,
                   "loop: how to read guest memory: auto (default), or a name as `vmsight doctor "
                   "VM --all` lists them")
        ->group(filter_group)
        ->type_name("NAME");
    app.add_option(
           "--rate", options_.rate,
           "loop: how many times a second to read the guest; 0 (the default): as often as possible")
        ->group(filter_group)
        ->type_name("HZ")
        ->check(CLI::Range(0.0, 1e6));
    app.add_option("--call", options_.call,
                   "probes: a command on this host that makes the guest call SITE $CALLS times, "
                   "and then ends")
        ->group(probes_group)
        ->type_name("CMD");
    app.add_option(
           "--site", options_.site,
           "what it calls: a function that does next to nothing (default " + options_.site + ")")
        ->group(probes_group)
        ->type_name("SITE");
    app.add_option("--calls", options_.calls, fmt::format("of a run (default {})", options_.calls))
        ->group(probes_group)
        ->type_name("N")
        ->check(CLI::Range(1u, 1'000'000'000u));
    app.add_option(
           "--slow-calls", options_.slow_calls,
           fmt::format("of a run of an engine that stops the guest at each hit (default {})",
                       options_.slow_calls))
        ->group(probes_group)
        ->type_name("N")
        ->check(CLI::Range(1u, 1'000'000u));
    app.add_option("--engines", options_.engines, "these only, with commas: kvm, gdbstub")
        ->group(probes_group)
        ->delimiter(',')
        ->type_name("LIST");
    app.add_option("--timeout", options_.timeout,
                   fmt::format("of a run, in seconds (default {})", options_.timeout))
        ->group(probes_group)
        ->type_name("S")
        ->check(CLI::Range(1.0, 86400.0));
  }

  Result<void> run(Session& session) override {
    if (options_.study == "probes" && options_.call.empty()) {
      return usage_error("study probes: what makes the guest call?",
                         "--call CMD: `vmsight study probes --help` has an example");
    }
    if (options_.study == "loop" && options_.cpu.size() > 1)
      return usage_error("study loop: one --cpu at a time", "start one loop for each");
    options_.json = session.common.json;
    options_.headers = session.common.headers;
    VMSIGHT_TRY(const std::string program, own_program(study_program, "VMSIGHT_STUDY"));
    return become(program, words_of(options_));
  }

 private:
  StudyOptions options_;
};

}  // namespace

extern const VerbInfo study_verb{
    .name = "study",
    .group = "Studies",
    .arguments = "techniques|probes|consistency|loop VM [options]",
    .summary =
        "Compare the techniques on a VM, the kinds of probes, or how far views can be believed",
    .examples =
        "  vmsight study techniques web1 --rates 1,10,100\n"
        "  vmsight study consistency web1 --views 2000\n"
        "  vmsight study probes web1 --call 'ssh web1 \"perl -e \\\"syscall(110, @ARGV) for "
        "1..$CALLS\\\" text\"'\n",
    .vm = VmArgument::none,
    .keeps_rights = "changes from one technique to the next",
    .make = make_verb<Study>,
};

}  // namespace vmsight
