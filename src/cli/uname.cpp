// vmsight uname VM: the kernel's name and version.
#include "cli/attach.h"
#include "render/system.h"

namespace vmsight {
namespace {

class Uname : public Verb {
 public:
  void declare(CLI::App& app) override {
    const auto flag = [&](const char* name, bool& value, const char* what) {
      app.add_flag(name, value, what)->group(format_group);
    };
    flag("-a,--all", all_, "everything");
    flag("-s,--kernel-name", format_.sysname, "the kernel's name (as without options)");
    flag("-n,--nodename", format_.nodename, "the host name");
    flag("-r,--kernel-release", format_.release, "the kernel's release");
    flag("-v,--kernel-version", format_.version, "the kernel's version");
    flag("-m,--machine", format_.machine, "the machine's architecture");
    flag("-o,--operating-system", format_.operating_system, "the operating system");
  }

  Result<void> run(Session& session) override {
    if (all_) format_ = {true, true, true, true, true, true};
    StateVerb verb;
    verb.options.parts = part_os;
    verb.text = [this](Output& out, const State& state, const Guest&) {
      print_uname(out, state.os, format_);
    };
    return show_state(session, verb);
  }

 private:
  bool all_ = false;
  UnameFormat format_;
};

}  // namespace

extern const VerbInfo uname_verb{
    .name = "uname",
    .group = "What is in the guest",
    .arguments = "VM [options]",
    .summary = "Name, release and version of the guest's kernel",
    .examples =
        "  vmsight uname web1 -a\n"
        "  vmsight uname web1 -r\n",
    .make = make_verb<Uname>,
};

}  // namespace vmsight
