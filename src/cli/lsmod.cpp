// vmsight lsmod VM: loaded kernel modules.
#include "cli/attach.h"
#include "render/system.h"

namespace vmsight {
namespace {

class Lsmod : public Verb {
 public:
  void declare(CLI::App&) override {}

  Result<void> run(Session& session) override {
    StateVerb verb;
    verb.rows = part_modules;
    verb.options.parts = part_modules;
    verb.text = [&](Output& out, const State& state, const Guest&) {
      print_modules(out, state, {.headers = session.common.headers});
    };
    return show_state(session, verb);
  }
};

}  // namespace

extern const VerbInfo lsmod_verb{
    .name = "lsmod",
    .group = "What is in the guest",
    .arguments = "VM [options]",
    .summary = "Loaded kernel modules",
    .examples =
        "  vmsight lsmod web1\n"
        "  vmsight lsmod web1 --json | jq '.modules[].name'\n",
    .shows_records = true,
    .make = make_verb<Lsmod>,
};

}  // namespace vmsight
