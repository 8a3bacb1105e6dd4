// credentials: programs that have the credentials of the kernel itself. The kernel gives each
// process a copy of its own; init_cred itself belongs to threads of the kernel alone.
#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"
#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::uint32_t kernel_thread = 0x00200000;  // PF_KTHREAD

Result<void> check_credentials(Look& look) {
  Members members(look.kernel);
  const GuestVirt init_cred = members.symbol("init_cred");
  const Offset real = members.offset("task_struct", "real_cred");
  const Offset effective = members.offset("task_struct", "cred");
  const Offset flags = members.offset("task_struct", "flags");
  const Offset mm = members.offset("task_struct", "mm");
  const Offset pid = members.offset("task_struct", "pid");
  VMSIGHT_TRY_VOID(members.check());
  for (const Process& process : look.state->processes) {
    Reader& reader = look.reader;
    reader.clear_fault();
    const GuestVirt task = process.task;
    const bool is_real = reader.pointer(task + real) == init_cred;
    const bool is_effective = reader.pointer(task + effective) == init_cred;
    // The state was read some time ago: the task may be another by now.
    const bool same = static_cast<std::int32_t>(reader.u32(task + pid)) == process.pid;
    const bool of_kernel = (reader.u32(task + flags) & kernel_thread) != 0;
    const bool is_user = reader.u64(task + mm) != 0 && !of_kernel;
    if (!reader.ok() || !same || !is_user) continue;
    ++look.looked_at;
    if (!is_real && !is_effective) continue;
    // A program in a system call may borrow them for a moment, as subjective ones.
    look.find({.what = fmt::format("process {} ({}) has the credentials of the kernel itself, "
                                   "init_cred",
                                   process.pid, process.comm),
               .object = fmt::format("process {}", process.pid),
               .sources = {is_real ? "task_struct.real_cred" : "task_struct.cred", "init_cred"},
               .sureness = is_real ? Sureness::certain : Sureness::likely,
               .address = task,
               .pid = process.pid});
  }
  return {};
}

}  // namespace

extern const IntegrityCheck credentials_check{
    .info = {.name = "credentials",
             .what = "no program has the kernel's own credentials",
             .family = "processes"},
    .parts = part_processes,
    .run = check_credentials,
};

}  // namespace vmsight
