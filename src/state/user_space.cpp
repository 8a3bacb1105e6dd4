#include "state/user_space.h"

#include "vmsight/reader.h"
#include "vmsight/state.h"

namespace vmsight {
namespace {

Result<GuestVirt> task_of(Kernel& kernel, GuestMemory& memory, std::int32_t pid) {
  State state;
  VMSIGHT_TRY(const auto reader, StateReader::create(kernel, memory));
  VMSIGHT_TRY_VOID(reader->read({.parts = part_processes, .pid = pid}, state));
  for (const Process& process : state.processes) {
    if (process.pid == pid) return process.task;
  }
  return no_such_pid(pid);
}

}  // namespace

Error no_such_pid(std::int32_t pid) {
  return {.code = ErrorCode::not_found,
          .message = fmt::format("no process {} in the guest", pid),
          .hint = "PIDs are those of the guest's root namespace; `vmsight ps VM` lists them"};
}

Result<AddressSpace> user_space_of(Kernel& kernel, GuestMemory& memory, std::int32_t pid) {
  VMSIGHT_TRY(const GuestVirt task, task_of(kernel, memory, pid));
  const auto mm_member = kernel.member("task_struct", "mm");
  const auto pgd_member = kernel.member("mm_struct", "pgd");
  if (!mm_member || !pgd_member) {
    return Error{.code = ErrorCode::unsupported, .message = "page tables of processes: unknown"};
  }
  Reader reader(memory, kernel.space());
  const GuestVirt mm = reader.pointer(task + mm_member->offset);
  if (reader.ok() && mm.raw() == 0) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("process {} has no user memory", pid),
                 .hint = "kernel threads and zombies have none"};
  }
  const GuestVirt table = reader.pointer(mm + pgd_member->offset);
  const auto root = kernel.space().translate(memory, table);
  if (!reader.ok() || !root) {
    return Error{.code = ErrorCode::fault,
                 .message = fmt::format("read the page table of process {}", pid)};
  }
  AddressSpace space = kernel.space().with_root(*root);
  space.set_direct_map(kernel.space().direct_map());
  space.set_image(kernel.space().image());
  return space;
}

}  // namespace vmsight
