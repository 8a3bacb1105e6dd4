// vmsight doctor [VM]: what works here, what does not, and what to do about it; and undoing what a
// killed vmsight left.
#include "cli/attach.h"
#include "cli/checks.h"
#include "render/escape.h"
#include "undo/recovery.h"

namespace vmsight {
namespace {

class Doctor : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_flag("--all", all_, "of a VM: every technique and engine, and what they need");
    app.add_flag("--recover", recover_,
                 "undo what a vmsight that was killed left in the VM, or in all");
  }

  Result<void> run(Session& session) override {
    if (recover_) return run_recovery(session);
    VMSIGHT_TRY(const VmChecks checks, look(session.common));
    if (session.common.json)
      print_json(session.out, checks);
    else
      print_text(session, checks);
    return {};
  }

 private:
  /// At the host, whose checks are all in the table, or at one VM.
  Result<VmChecks> look(const CommonOptions& options) const {
    if (options.vm.empty()) return VmChecks{.summary = {}, .table = check_host()};
    VmChecks checks;
    VMSIGHT_TRY(Guest guest, open_named(options));
    if (guest.vm) checks = check_vm(*guest.vm, all_ || options.json);
    if (auto paused = guest.vm ? check_paused(*guest.vm) : std::nullopt)
      checks.summary.insert(checks.summary.begin(), *std::move(paused));
    checks.summary.push_back(check_kernel(options));
    if (options.json) checks.table.push_back(checks.summary.back());
    return checks;
  }

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

  static Json to_json(const std::vector<Check>& checks) {
    Json list = Json::array();
    for (const Check& check : checks) {
      list.push_back({{"name", check.name},
                      {"works", check.works},
                      {"what", for_json(check.what)},
                      {"reason", for_json(check.reason)},
                      {"hint", check.hint.empty() ? Json(nullptr) : Json(for_json(check.hint))},
                      {"abilities", check.abilities}});
    }
    return list;
  }

  static void print_json(Output& out, const VmChecks& checks) {
    out.print("{}\n", dump({{"schema", "vmsight.doctor/1"},
                            {"checks", to_json(checks.table)},
                            {"summary", to_json(checks.summary)}}));
  }

  static void print_text(Session& session, const VmChecks& checks) {
    const bool both = !checks.summary.empty() && !checks.table.empty();
    print_text(session, checks.summary);
    if (both) session.out.print("\n");
    print_text(session, checks.table);
    if (checks.table.empty()) {
      session.out.print("\n`vmsight doctor {} --all` tells every technique, its costs and needs\n",
                        for_terminal(session.common.vm));
    }
  }

  static void print_text(Session& session, const std::vector<Check>& checks) {
    std::size_t widest = 0;
    for (const Check& check : checks) widest = std::max(widest, check.name.size());
    for (const Check& check : checks) {
      session.out.print("{:<4}{:<{}}  {}\n", check.works ? "yes" : "no", check.name, widest,
                        for_terminal(check.what));
      const std::size_t indent = 4 + widest + 2;
      if (!check.reason.empty())
        session.out.print("{:{}}{}\n", "", indent, for_terminal(check.reason));
      if (!check.hint.empty())
        session.out.print("{:{}}hint: {}\n", "", indent, for_terminal(check.hint));
    }
  }

  bool all_ = false, recover_ = false;
};

}  // namespace

extern const VerbInfo doctor_verb{
    .name = "doctor",
    .group = "VMs",
    .arguments = "[VM] [options]",
    .summary = "What works on this host, or for one VM, and if not why and what to do",
    .examples =
        "  vmsight doctor\n"
        "  vmsight doctor web1\n"
        "  vmsight doctor web1 --all\n"
        "  vmsight doctor --recover web1\n",
    .vm = VmArgument::optional,
    .make = make_verb<Doctor>,
};

}  // namespace vmsight
