#include "cli/user_space.h"

#include "cli/filters.h"
#include "vmsight/reader.h"

namespace vmsight {
namespace {

Result<GuestVirt> task_of(Target& target, std::int32_t pid) {
  State state;
  VMSIGHT_TRY_VOID(read_state(target, {.parts = part_processes, .pid = pid}, state));
  for (const Process& process : state.processes) {
    if (process.pid == pid) return process.task;
  }
  return no_such_pid(pid);
}

}  // namespace

Result<AddressSpace> user_space_of(Target& target, std::int32_t pid) {
  VMSIGHT_TRY(const GuestVirt task, task_of(target, pid));
  Kernel& kernel = *target.kernel;
  const auto mm_member = kernel.member("task_struct", "mm");
  const auto pgd_member = kernel.member("mm_struct", "pgd");
  if (!mm_member || !pgd_member) {
    return Error{.code = ErrorCode::unsupported, .message = "page tables of processes: unknown"};
  }
  Reader reader(*target.memory, kernel.space());
  const GuestVirt mm = reader.pointer(task + mm_member->offset);
  if (reader.ok() && mm.raw() == 0) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("process {} has no user memory", pid),
                 .hint = "kernel threads and zombies have none"};
  }
  const GuestVirt table = reader.pointer(mm + pgd_member->offset);
  const auto root = kernel.space().translate(*target.memory, table);
  if (!reader.ok() || !root) {
    return Error{.code = ErrorCode::fault,
                 .message = fmt::format("read the page table of process {}", pid)};
  }
  AddressSpace space(*root, kernel.space().five_level());
  space.set_direct_map(kernel.space().direct_map());
  space.set_image(kernel.space().image());
  return space;
}

}  // namespace vmsight
