// Threads: what /proc/PID/task/TID shows where one differs from the others.
#pragma once

#include "state/process_times.h"
#include "state/task_names.h"
#include "state/tasks.h"

namespace vmsight {

class ThreadsReader {
 public:
  static Result<ThreadsReader> resolve(Kernel& kernel, const Tasks& tasks, const TaskNames& names);

  /// Appends the threads of a process, which process.shared.threads has. Their descriptor tables
  /// are those of process.shared.tables.
  void read(ProcessContext& process, std::int32_t tgid) const;

  /// From task_struct.prio, static_prio: field 18 and 19 of /proc/PID/stat.
  static std::int32_t priority(std::uint32_t prio);
  static std::int32_t nice(std::uint32_t static_prio);

 private:
  void read_thread(ProcessContext& process, GuestVirt task, std::int32_t tgid) const;
  void read_times(Reader& reader, GuestVirt task, Thread& thread) const;
  void read_credentials(Reader& reader, GuestVirt task, Thread& thread) const;
  void read_directories(ProcessContext& process, GuestVirt task, Thread& thread) const;

  Tasks tasks_;
  TaskNames names_;
  struct Offsets {
    Offset uid, gid, euid, egid, fs_root, fs_pwd;
  } at_{};
};

}  // namespace vmsight
