#include "state/process_times.h"

namespace vmsight {

CpuTime adjust_cpu_time(const CpuTime& sampled, const CpuTime& before) {
  if (before.user + before.system >= sampled.runtime) {
    return {before.user, before.system, sampled.runtime};
  }
  std::uint64_t system = 0;
  if (sampled.user == 0 && sampled.system != 0) {
    system = sampled.runtime;
  } else if (sampled.system != 0) {
    const auto product = static_cast<unsigned __int128>(sampled.system) * sampled.runtime;
    const auto total = static_cast<unsigned __int128>(sampled.system) + sampled.user;
    system = static_cast<std::uint64_t>(product / total);
  }
  system = std::max(system, before.system);
  std::uint64_t user = sampled.runtime - system;
  if (system > sampled.runtime || user < before.user) {
    user = before.user;
    system = sampled.runtime - user;
  }
  return {user, system, sampled.runtime};
}

Result<TimesReader> TimesReader::resolve(Kernel& kernel, const Tasks& tasks) {
  Members members(kernel);
  TimesReader times;
  times.tasks_ = tasks;
  times.at_ = {
      .user = members.offset("signal_struct", "utime"),
      .system = members.offset("signal_struct", "stime"),
      .runtime = members.offset("signal_struct", "sum_sched_runtime"),
      .before_user = members.offset("signal_struct", "prev_cputime.utime"),
      .before_system = members.offset("signal_struct", "prev_cputime.stime"),
  };
  VMSIGHT_TRY_VOID(members.check());
  return times;
}

void TimesReader::read(ProcessContext& process, GuestVirt leader, GuestVirt signal,
                       Process& record) const {
  Reader& reader = process.reader();
  const Tasks::Offsets& task_at = tasks_.at();
  const auto count = reader.u32(signal + task_at.nr_threads);
  auto& threads = process.shared.threads;
  threads.clear();
  if (count == 1) {
    threads.push_back(leader);
  } else {
    tasks_.walk_threads(reader, signal, threads);
  }
  const Unrecorded moving(reader);
  // Threads that have ended left their time with the group.
  CpuTime sampled{reader.u64(signal + at_.user), reader.u64(signal + at_.system),
                  reader.u64(signal + at_.runtime)};
  for (GuestVirt task : threads) {
    sampled.user += reader.u64(task + task_at.utime);
    sampled.system += reader.u64(task + task_at.stime);
    sampled.runtime += reader.u64(task + task_at.sum_exec_runtime);
  }
  const CpuTime before{reader.u64(signal + at_.before_user), reader.u64(signal + at_.before_system),
                       0};
  if (!reader.ok()) return;
  const CpuTime shown = adjust_cpu_time(sampled, before);
  record.threads = count;
  record.utime_ns = shown.user;
  record.stime_ns = shown.system;
}

}  // namespace vmsight
