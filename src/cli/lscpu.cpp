// vmsight lscpu VM: CPUs.
#include "cli/target.h"
#include "render/system.h"

namespace vmsight {
namespace {

class Lscpu : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_flag("-e,--extended", each_, "a line a CPU")->group(format_group);
  }

  Result<void> run(Session& session) override {
    StateVerb verb;
    verb.options.parts = part_cpus | part_os;
    verb.shown = part_cpus;
    verb.text = [&](Output& out, const State& state, const Target&) {
      if (each_)
        print_cpu_table(out, state, {.headers = session.common.headers});
      else
        print_cpu_summary(out, state);
    };
    return show_state(session, verb);
  }

 private:
  bool each_ = false;
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
    .make = make_verb<Lscpu>,
};

}  // namespace vmsight
