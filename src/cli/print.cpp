// vmsight print VM EXPRESSION: live values by their types.
#include "cli/address_argument.h"
#include "cli/attach.h"
#include "kernel/type_print.h"
#include "vmsight/reader.h"

namespace vmsight {
namespace {

class Print : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option(
           "EXPRESSION", request_.expression,
           "init_task.comm, 'init_task.parent->pid', '*init_task.cred' ...; with --at a type")
        ->group("Arguments")
        ->required();
    app.add_option("--at", at_, "print the type EXPRESSION at this address")
        ->group("Address")
        ->type_name("ADDR");
    app.add_option("--cpu", request_.cpu, "whose copy of a per-CPU variable")
        ->group("Address")
        ->type_name("N");
    app.add_option("--depth", request_.depth, "structures inside structures (default 3)")
        ->group(format_group)
        ->type_name("N");
    app.add_option("--elements", request_.max_elements, "elements of an array (default 64)")
        ->group(format_group)
        ->type_name("N");
  }

  Result<void> run(Session& session) override {
    return with_guest(session.common, [&](Guest& guest) -> Result<void> {
      if (!at_.empty()) {
        VMSIGHT_TRY(request_.address, parse_virtual(*guest.kernel, at_));
      }
      Reader reader(*guest.memory, guest.kernel->space());
      std::optional<Printed> printed;
      VMSIGHT_TRY_VOID(in_one_view(*guest.memory, [&]() -> Result<void> {
        VMSIGHT_TRY(printed, evaluate(*guest.kernel, reader, request_));
        return {};
      }));
      if (session.common.json)
        session.out.print("{}\n", dump(to_json(*printed)));
      else
        session.out.write(to_text(*printed));
      return {};
    });
  }

 private:
  PrintRequest request_;
  std::string at_;
};

}  // namespace

extern const VerbInfo print_verb{
    .name = "print",
    .group = "Memory, symbols and types",
    .arguments = "VM EXPRESSION [options]",
    .summary = "Live values of kernel variables and objects, by their types",
    .examples =
        "  vmsight print web1 'init_task.comm'\n"
        "  vmsight print web1 'struct task_struct' --at 0xffff888003a40000 --depth 1\n"
        "  vmsight print web1 '*(struct virtio_driver *)&virtio_net:virtio_net_driver'\n",
    .make = make_verb<Print>,
};

}  // namespace vmsight
