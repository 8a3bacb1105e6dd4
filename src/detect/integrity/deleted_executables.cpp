// deleted-executables: processes whose program is no file any more, or never was one (memfd).
// After an upgrade services do that too, until they are restarted.
#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"

namespace vmsight {
namespace {

Result<void> check_executables(Look& look) {
  for (const Process& process : look.state->processes) {
    if (process.exe.data() == nullptr) continue;
    ++look.looked_at;
    if (!process.exe.ends_with(" (deleted)")) continue;
    const bool in_memory = process.exe.starts_with("/memfd:");
    look.find(
        {.what = fmt::format("process {} ({}) runs {}: {}", process.pid, process.comm,
                             in_memory ? "a file in memory only" : "a deleted file", process.exe),
         .object = fmt::format("process {}", process.pid),
         .sources = {"processes"},
         .sureness = Sureness::hint,
         .address = process.task,
         .pid = process.pid});
  }
  return {};
}

}  // namespace

extern const IntegrityCheck deleted_executables_check{
    .info = {.name = "deleted-executables",
             .what = "processes that run a deleted file, or one in memory only",
             .family = "processes"},
    .parts = part_processes,
    .run = check_executables,
};

}  // namespace vmsight
