// vmsight lscpu VM: CPUs.
#include <unistd.h>

#include "cli/attach.h"
#include "render/system.h"

namespace vmsight {
namespace {

class Lscpu : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_flag("-e,--extended", each_, "a line a CPU")->group(format_group);
    app.add_flag("-p,--parse", parse_, "the same with commas, for programs")->group(format_group);
    app.add_flag("-b,--online", online_, "-e, -p: only CPUs that are online (-p: the default)")
        ->group(format_group);
    app.add_flag("-c,--offline", offline_, "-e, -p: only those that are not")->group(format_group);
    app.add_flag("-a,--all", all_, "-e, -p: both (-e: the default)")->group(format_group);
    app.add_option("--hierarchic", hierarchic_,
                   "the summary's lines below headings: auto (on a terminal), always, never")
        ->expected(0, 1)
        ->default_str("always")
        ->group(format_group)
        ->type_name("WHEN")
        ->check(CLI::IsMember({"auto", "always", "never"}));
    app.add_flag("-J", json_, "as --json")->group(format_group);
  }

  Result<void> run(Session& session) override {
    const int choices = int{online_} + int{offline_} + int{all_};
    if (choices > 0 && !each_ && !parse_)
      return usage_error("lscpu: -a, -b and -c go with -e or -p");
    if (choices > 1) return usage_error("lscpu: -a, -b and -c exclude each other");
    online_ |= parse_ && choices == 0;
    session.common.json |= json_;
    StateVerb verb;
    verb.rows = part_cpus;
    verb.filter = [this](State& state, Guest&) -> Result<void> {
      if (online_ == offline_) return {};
      std::erase_if(state.cpus, [this](const CpuInfo& cpu) { return cpu.online != online_; });
      return {};
    };
    verb.options.parts = part_cpus | part_os;
    verb.shown = part_cpus;
    verb.text = [&](Output& out, const State& state, const Guest&) {
      if (parse_) return print_cpu_lines(out, state);
      if (each_) return print_cpu_table(out, state, {.headers = session.common.headers});
      const bool is_for_people = ::isatty(STDOUT_FILENO) == 1;
      print_cpu_summary(out, state,
                        hierarchic_ == "auto" ? is_for_people : hierarchic_ == "always");
    };
    return show_state(session, verb);
  }

 private:
  std::string hierarchic_ = "auto";
  bool each_ = false, parse_ = false, online_ = false, offline_ = false, json_ = false,
       all_ = false;
};

}  // namespace

extern const VerbInfo lscpu_verb{
    .name = "lscpu",
    .group = "What is in the guest",
    .arguments = "VM [options]",
    .summary = "CPUs as the guest sees them",
    .examples =
        "  vmsight lscpu web1\n"
        "  vmsight lscpu web1 -e\n",
    .shows_records = true,
    .make = make_verb<Lscpu>,
};

}  // namespace vmsight
