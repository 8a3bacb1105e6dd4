#include "probe/current_task.h"

#include <algorithm>

namespace vmsight {

GuestVirt current_task_variable(Members& members) {
  // From 6.2 to 6.14 it was in a structure of what every CPU needs often.
  const auto hot = members.kernel().member("pcpu_hot", "current_task");
  return hot ? members.symbol("pcpu_hot") + hot->offset : members.symbol("current_task");
}

Result<CurrentTask> CurrentTask::resolve(Kernel& kernel) {
  Members members(kernel);
  CurrentTask current;
  current.at_ = {
      .pid = members.offset("task_struct", "pid"),
      .tgid = members.offset("task_struct", "tgid"),
      .comm = members.offset("task_struct", "comm"),
      .mm = members.offset("task_struct", "mm"),
  };
  current.current_ = current_task_variable(members);
  VMSIGHT_TRY_VOID(members.check());
  const auto offsets = kernel.per_cpu_offsets();
  current.per_cpu_.assign(offsets.begin(), offsets.end());
  std::erase(current.per_cpu_, 0);
  std::sort(current.per_cpu_.begin(), current.per_cpu_.end());
  return current;
}

CurrentTask::Found CurrentTask::find(Reader& reader, std::uint64_t gs_base,
                                     std::uint64_t other_gs_base) const {
  const auto is_cpu = [&](std::uint64_t base) {
    return std::binary_search(per_cpu_.begin(), per_cpu_.end(), base);
  };
  Found found;
  const std::uint64_t base = is_cpu(gs_base) ? gs_base : other_gs_base;
  if (!is_cpu(base)) return found;
  reader.clear_fault();
  const GuestVirt task = reader.pointer(current_ + base);
  found.task.pid = static_cast<std::int32_t>(reader.u32(task + at_.pid));
  found.task.tgid = static_cast<std::int32_t>(reader.u32(task + at_.tgid));
  reader.copy(task + at_.comm, std::as_writable_bytes(std::span(found.task.comm)));
  found.task.comm.back() = '\0';
  found.mm = reader.pointer(task + at_.mm);
  const bool readable = reader.ok();
  reader.clear_fault();
  if (!readable) return {};
  found.task.task = task;
  return found;
}

}  // namespace vmsight
