// ftrace-handlers: who is called when a traced function is entered. The kernel's own tracers,
// livepatches, kprobes and BPF are functions of the kernel or of a listed module.
#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"
#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::size_t max_handlers = 1U << 14;

Result<void> check_ftrace_handlers(Look& look) {
  Members members(look.kernel);
  const GuestVirt list = members.symbol("ftrace_ops_list");
  const GuestVirt end = members.symbol("ftrace_list_end");
  const Offset function = members.offset("ftrace_ops", "func");
  const Offset next = members.offset("ftrace_ops", "next");
  VMSIGHT_TRY_VOID(members.check());
  if (!look.places.modules_problem().empty())
    return Error{ErrorCode::bad_data, look.places.modules_problem()};
  GuestVirt at = look.reader.pointer(list);
  while (look.reader.ok() && at != end && at != GuestVirt()) {
    if (++look.looked_at > max_handlers) return unreadable("ftrace_ops_list (it has no end)");
    const GuestVirt handler = look.reader.pointer(at + function);
    if (look.reader.ok() && !look.places.is_code(handler)) {
      look.find({.what = fmt::format("a function tracer at {:#x} calls {}, which is neither the "
                                     "kernel's text nor a listed module's",
                                     at.raw(), look.places.name(handler)),
                 .object = fmt::format("ftrace_ops {:#x}", at.raw()),
                 .sources = {"ftrace_ops_list", "modules"},
                 .sureness = Sureness::certain,
                 .address = at});
    }
    at = look.reader.pointer(at + next);
  }
  return look.reader.ok() ? Result<void>() : unreadable("ftrace_ops_list");
}

}  // namespace

extern const IntegrityCheck ftrace_handlers_check{
    .info = {.name = "ftrace-handlers",
             .what = "function tracers call the kernel or listed modules",
             .family = "kernel"},
    .run = check_ftrace_handlers,
};

}  // namespace vmsight
