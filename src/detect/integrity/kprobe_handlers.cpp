// kprobes: the handlers of probes in the kernel's code.
#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"
#include "detect/integrity/kprobe_table.h"

namespace vmsight {
namespace {

void check_handler(Look& look, const Kprobe& probe, const char* which, GuestVirt handler) {
  if (handler == GuestVirt() || look.places.is_code(handler)) return;
  look.find({.what = fmt::format("the {} of the kprobe at {} is {}, which is neither the kernel's "
                                 "text nor a listed module's",
                                 which, look.places.name(probe.address), look.places.name(handler)),
             .object = fmt::format("kprobe {:#x} {}", probe.at.raw(), which),
             .sources = {"kprobe_table", "modules"},
             .sureness = Sureness::certain,
             .address = probe.at});
}

Result<void> check_kprobes(Look& look) {
  if (!look.places.modules_problem().empty())
    return Error{ErrorCode::bad_data, look.places.modules_problem()};
  VMSIGHT_TRY(const std::vector<Kprobe> probes, read_kprobes(look.kernel, look.reader));
  for (const Kprobe& probe : probes) {
    check_handler(look, probe, "pre_handler", probe.pre_handler);
    check_handler(look, probe, "post_handler", probe.post_handler);
  }
  look.looked_at = probes.size();
  return {};
}

}  // namespace

extern const IntegrityCheck kprobes_check{
    .info = {.name = "kprobes",
             .what = "kprobes call the kernel or listed modules",
             .family = "kernel"},
    .run = check_kprobes,
    .doubtful_during = KernelChanges::code,
};

}  // namespace vmsight
