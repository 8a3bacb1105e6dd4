// vmsight doctor [VM]: what works here, what does not, and what to do about it; and undoing what a
// killed vmsight left.
#include "cli/attach.h"
#include "cli/checks.h"
#include "render/escape.h"
#include "vm/recovery.h"

namespace vmsight {
namespace {

class Doctor : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_flag("--recover", recover_,
                 "undo what a vmsight that was killed left in the VM, or in all");
  }

  Result<void> run(Session& session) override {
    if (recover_) return run_recovery(session);
    std::vector<Check> checks = check_host();
    if (!session.common.vm.empty()) {
      VMSIGHT_TRY(Guest guest, open_named(session.common));
      checks = guest.vm ? check_vm(*guest.vm) : std::vector<Check>{};
      checks.push_back(check_kernel(session.common));
    }
    if (session.common.json)
      print_json(session.out, checks);
    else
      print_text(session, checks);
    return {};
  }

 private:
  static Result<void> run_recovery(Session& session) {
    std::optional<ProcessId> vm;
    if (!session.common.vm.empty()) {
      VMSIGHT_TRY(const VmInfo info, find_vm(session.common.vm));
      vm = ProcessId{info.pid, info.start_time};
    }
    const std::vector<Recovery> all = recover(vm);
    if (session.common.json)
      print_json(session.out, all);
    else
      print_text(session.out, all);
    for (const Recovery& one : all) {
      if (!one.undone) {
        return Error{.code = ErrorCode::os,
                     .message = fmt::format("recover {}: {}", one.vm, one.reason),
                     .hint = one.hint.empty() ? "try again" : one.hint};
      }
    }
    return {};
  }

  static void print_json(Output& out, const std::vector<Recovery>& all) {
    Json list = Json::array();
    for (const Recovery& one : all) {
      list.push_back({{"vm", for_json(one.vm)},
                      {"pid", one.pid},
                      {"kind", for_json(one.kind)},
                      {"what", for_json(one.what)},
                      {"undone", one.undone},
                      {"reason", for_json(one.reason)}});
    }
    out.print("{}\n", dump({{"schema", "vmsight.recovery/1"}, {"recovered", std::move(list)}}));
  }

  static void print_text(Output& out, const std::vector<Recovery>& all) {
    if (all.empty()) out.print("nothing to undo\n");
    for (const Recovery& one : all) {
      out.print("{} (pid {}): {}: {}\n", for_terminal(one.vm), one.pid, for_terminal(one.what),
                one.undone ? "undone" : "not undone");
    }
  }

  static void print_json(Output& out, const std::vector<Check>& checks) {
    Json list = Json::array();
    for (const Check& check : checks) {
      list.push_back({{"name", check.name},
                      {"works", check.works},
                      {"what", for_json(check.what)},
                      {"reason", for_json(check.reason)},
                      {"hint", check.hint.empty() ? Json(nullptr) : Json(for_json(check.hint))}});
    }
    out.print("{}\n", dump({{"schema", "vmsight.doctor/1"}, {"checks", std::move(list)}}));
  }

  static void print_text(Session& session, const std::vector<Check>& checks) {
    for (const Check& check : checks) {
      session.out.print("{:<4}{:<15} {}\n", check.works ? "yes" : "no", check.name,
                        for_terminal(check.what));
      if (!check.reason.empty()) session.out.print("{:20}{}\n", "", for_terminal(check.reason));
      if (!check.hint.empty()) session.out.print("{:20}hint: {}\n", "", for_terminal(check.hint));
    }
  }

  bool recover_ = false;
};

}  // namespace

extern const VerbInfo doctor_verb{
    .name = "doctor",
    .group = "VMs",
    .arguments = "[VM] [options]",
    .summary = "What works on this host, or for one VM, and if not why and what to do",
    .examples =
        "  vmsight doctor\n"
        "  vmsight doctor --recover web1\n",
    .vm = VmArgument::optional,
    .make = make_verb<Doctor>,
};

}  // namespace vmsight
