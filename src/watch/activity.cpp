#include "watch/activity.h"

#include <array>

namespace vmsight::detect {

Result<ActivityReader> ActivityReader::resolve(Kernel& kernel) {
  Members members(kernel);
  ActivityReader reader;
  reader.at_ = {
      .pid = members.offset("task_struct", "pid"),
      .comm = members.offset("task_struct", "comm"),
      .voluntary = members.offset("task_struct", "nvcsw"),
      .involuntary = members.offset("task_struct", "nivcsw"),
      .ran = members.offset("task_struct", "se.sum_exec_runtime"),
      .reads = members.find("task_struct", "ioac.syscr"),  // CONFIG_TASK_XACCT
      .writes = members.find("task_struct", "ioac.syscw"),
      .switches = members.offset("rq", "nr_switches"),
      .running = members.offset("rq", "nr_running"),
      .current = members.offset("rq", "curr"),
      .idle = members.offset("rq", "idle"),
  };
  reader.run_queues_ = members.symbol("runqueues");
  reader.timers_ = members.find_symbol("hrtimer_interrupts");
  VMSIGHT_TRY_VOID(members.check());
  return reader;
}

std::optional<TaskActivity> ActivityReader::read_task(Reader& reader, GuestVirt task,
                                                      std::int32_t pid) const {
  reader.clear_fault();
  TaskActivity activity{.voluntary = reader.u64(task + at_.voluntary),
                        .involuntary = reader.u64(task + at_.involuntary),
                        .ran_ns = reader.u64(task + at_.ran)};
  for (const Offset calls : {at_.reads, at_.writes}) {
    if (calls != absent) activity.transfers += reader.u64(task + calls);
  }
  const bool is_same = static_cast<std::int32_t>(reader.u32(task + at_.pid)) == pid && reader.ok();
  reader.clear_fault();
  return is_same ? std::optional(activity) : std::nullopt;
}

std::vector<std::optional<CpuActivity>> ActivityReader::read_cpus(Kernel& kernel,
                                                                  Reader& reader) const {
  std::vector<std::optional<CpuActivity>> cpus;
  for (std::size_t cpu = 0; cpu < kernel.per_cpu_offsets().size(); ++cpu) {
    auto& activity = cpus.emplace_back();
    if (kernel.per_cpu_offsets()[cpu] == 0) continue;
    const GuestVirt queue = kernel.per_cpu(run_queues_, cpu);
    reader.clear_fault();
    CpuActivity found{.switches = reader.u64(queue + at_.switches),
                      .running = reader.u32(queue + at_.running),
                      .current = reader.pointer(queue + at_.current)};
    found.idle = found.current == reader.pointer(queue + at_.idle);
    if (timers_.raw() != 0) found.interrupts = reader.u32(kernel.per_cpu(timers_, cpu));
    if (reader.ok() && found.current.raw() != 0) activity = found;
    reader.clear_fault();
  }
  return cpus;
}

std::optional<std::int32_t> ActivityReader::pid_of(Reader& reader, GuestVirt task) const {
  reader.clear_fault();
  const auto pid = static_cast<std::int32_t>(reader.u32(task + at_.pid));
  const bool readable = reader.ok();
  reader.clear_fault();
  return readable ? std::optional(pid) : std::nullopt;
}

std::string ActivityReader::name_of(Reader& reader, GuestVirt task) const {
  std::array<char, 16> buffer{};
  reader.clear_fault();
  std::string name(reader.c_string(task + at_.comm, buffer));
  reader.clear_fault();
  return name;
}

}  // namespace vmsight::detect
