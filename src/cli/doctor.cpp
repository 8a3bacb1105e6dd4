// vmsight doctor [VM]: what works here, what does not, and what to do about it.
#include "cli/checks.h"
#include "cli/target.h"
#include "render/escape.h"

namespace vmsight {
namespace {

class Doctor : public Verb {
 public:
  void declare(CLI::App&) override {}

  Result<void> run(Session& session) override {
    std::vector<Check> checks = check_host();
    if (!session.common.vm.empty()) {
      VMSIGHT_TRY(Target target, open_vm_or_image(session.common.vm));
      checks = target.vm ? check_vm(*target.vm) : std::vector<Check>{};
      checks.push_back(check_kernel(session.common));
    }
    if (session.common.json) print_json(session.out, checks);
    else print_text(session, checks);
    return {};
  }

 private:
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
};

}  // namespace

extern const VerbInfo doctor_verb{
    .name = "doctor",
    .group = "VMs",
    .arguments = "[VM] [options]",
    .summary = "What works on this host, or for one VM, and if not why and what to do",
    .examples = "  vmsight doctor\n"
                "  vmsight doctor web1\n",
    .vm = VmArgument::optional,
    .make = make_verb<Doctor>,
};

}  // namespace vmsight
