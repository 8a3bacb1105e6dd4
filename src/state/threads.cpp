#include "state/threads.h"

namespace vmsight {

namespace {
// include/linux/sched/prio.h, the same in 5.10-7.2
constexpr std::uint32_t max_rt_prio = 100, default_prio = 120;
}  // namespace

std::int32_t ThreadsReader::priority(std::uint32_t prio) {
  return static_cast<std::int32_t>(prio - max_rt_prio);
}

std::int32_t ThreadsReader::nice(std::uint32_t static_prio) {
  return static_cast<std::int32_t>(static_prio - default_prio);
}

Result<ThreadsReader> ThreadsReader::resolve(Kernel& kernel, const Tasks& tasks,
                                             const TaskNames& names) {
  Members members(kernel);
  ThreadsReader threads;
  threads.tasks_ = tasks;
  threads.names_ = names;
  threads.at_ = {
      .uid = members.offset("cred", "uid"),
      .gid = members.offset("cred", "gid"),
      .euid = members.offset("cred", "euid"),
      .egid = members.offset("cred", "egid"),
      .fs_root = members.offset("fs_struct", "root"),
      .fs_pwd = members.offset("fs_struct", "pwd"),
  };
  VMSIGHT_TRY_VOID(members.check());
  return threads;
}

void ThreadsReader::read(ProcessContext& process, std::int32_t tgid) const {
  for (const GuestVirt task : process.shared.threads) {
    if (!process.reader().ok() || is_full(process.state().threads, process.context.arena())) return;
    read_thread(process, task, tgid);
  }
}

void ThreadsReader::read_thread(ProcessContext& process, GuestVirt task, std::int32_t tgid) const {
  Reader& reader = process.reader();
  const Tasks::Offsets& at = tasks_.at();
  Thread thread{
      .pid = static_cast<std::int32_t>(reader.u32(task + at.pid)),
      .tgid = static_cast<std::int32_t>(reader.u32(task + at.tgid)),
      .comm = names_.read(reader, process.context.arena(), task, reader.u32(task + at.flags)),
      .state = tasks_.state_letter(reader, task),
      .cpu = static_cast<std::int32_t>(reader.u32(task + at.cpu)),
      .task = task,
      .stack = reader.pointer(task + at.stack),
      .nice = nice(reader.u32(task + at.static_prio)),
      .priority = priority(reader.u32(task + at.prio)),
      .policy = reader.u32(task + at.policy),
      .rt_priority = reader.u32(task + at.rt_priority),
      .flags = reader.u32(task + at.flags),
  };
  if (thread.tgid != tgid) reader.set_fault(task);
  read_times(reader, task, thread);
  read_credentials(reader, task, thread);
  read_directories(process, task, thread);
  const GuestVirt files = reader.pointer(task + at.files);
  const std::int32_t* table = process.shared.tables.find(files);
  if (files.raw() != 0 && table != nullptr) thread.files_of = *table;
  if (reader.ok()) process.state().threads.push_back(thread);
}

void ThreadsReader::read_times(Reader& reader, GuestVirt task, Thread& thread) const {
  const Tasks::Offsets& at = tasks_.at();
  thread.start_time_ns = reader.u64(task + at.start_boottime);
  const Unrecorded moving(reader);
  const CpuTime shown =
      adjust_cpu_time({reader.u64(task + at.utime), reader.u64(task + at.stime),
                       reader.u64(task + at.sum_exec_runtime)},
                      {reader.u64(task + at.before_user), reader.u64(task + at.before_system), 0});
  thread.utime_ns = shown.user;
  thread.stime_ns = shown.system;
}

void ThreadsReader::read_credentials(Reader& reader, GuestVirt task, Thread& thread) const {
  const GuestVirt cred = reader.pointer(task + tasks_.at().real_cred);
  const std::uint32_t uid = reader.u32(cred + at_.uid), gid = reader.u32(cred + at_.gid),
                      euid = reader.u32(cred + at_.euid), egid = reader.u32(cred + at_.egid);
  if (!reader.ok()) return;
  thread.uid = uid;
  thread.gid = gid;
  thread.euid = euid;
  thread.egid = egid;
}

void ThreadsReader::read_directories(ProcessContext& process, GuestVirt task,
                                     Thread& thread) const {
  const GuestVirt fs = process.reader().pointer(task + tasks_.at().fs);
  if (fs.raw() == 0) return;  // it has ended, or is the kernel's own
  thread.root = process.paths.path(process.paths.read(fs + at_.fs_root));
  thread.cwd = process.paths.path(process.paths.read(fs + at_.fs_pwd));
}

}  // namespace vmsight
