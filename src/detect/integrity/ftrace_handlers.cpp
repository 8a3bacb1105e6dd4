// ftrace-handlers: who is called when a traced function is entered. The kernel's own tracers,
// livepatches, kprobes and BPF are functions of the kernel or of a listed module.
#include <fmt/format.h>

#include "detect/integrity/ftrace_tables.h"
#include "detect/integrity/integrity_check.h"

namespace vmsight {
namespace {

Result<void> check_ftrace_handlers(Look& look) {
  if (!look.places.modules_problem().empty())
    return Error{ErrorCode::bad_data, look.places.modules_problem()};
  VMSIGHT_TRY(const auto tracers, read_ftrace_tracers(look.kernel, look.reader));
  look.looked_at = tracers.size();
  for (const FtraceTracer& tracer : tracers) {
    if (look.places.is_code(tracer.handler)) continue;
    look.find({.what = fmt::format("a function tracer at {:#x} calls {}, which is neither the "
                                   "kernel's text nor a listed module's",
                                   tracer.at.raw(), look.places.name(tracer.handler)),
               .object = fmt::format("ftrace_ops {:#x}", tracer.at.raw()),
               .sources = {"ftrace_ops_list", "modules"},
               .sureness = Sureness::certain,
               .address = tracer.at});
  }
  return {};
}

}  // namespace

extern const IntegrityCheck ftrace_handlers_check{
    .info = {.name = "ftrace-handlers",
             .what = "function tracers call the kernel or listed modules",
             .family = "kernel"},
    .run = check_ftrace_handlers,
    .doubtful_during = KernelChanges::code,
};

}  // namespace vmsight
