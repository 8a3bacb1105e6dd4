// vmsight type VM NAME: a type as C defines it.
#include "cli/attach.h"
#include "kernel/type_print.h"

namespace vmsight {
namespace {

class Type : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("NAME", names_,
                   "task_struct, 'struct page', pid_t, or a function such as vfs_read")
        ->group("Arguments")
        ->required();
  }

  Result<void> run(Session& session) override {
    return with_guest(session.common, [&](Guest& guest) -> Result<void> {
      VMSIGHT_TRY(const Btf* btf, guest.kernel->btf());
      for (const std::string& name : names_) {
        if (session.common.json) {
          VMSIGHT_TRY(const Json json, type_to_json(*btf, name));
          session.out.print("{}\n", dump(json));
        } else {
          VMSIGHT_TRY(const std::string text, print_type(*btf, name));
          session.out.write(text);
        }
      }
      return {};
    });
  }

 private:
  std::vector<std::string> names_;
};

}  // namespace

extern const VerbInfo type_verb{
    .name = "type",
    .group = "Memory, symbols and types",
    .arguments = "VM NAME... [options]",
    .summary = "Types of the guest's kernel: members, offsets, sizes",
    .examples =
        "  vmsight type web1 task_struct\n"
        "  vmsight type web1 tcp_connect --json\n",
    .make = make_verb<Type>,
};

}  // namespace vmsight
