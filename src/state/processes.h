// One process, whole: its record, threads, open files and memory areas.
#pragma once

#include <optional>

#include "state/files.h"
#include "state/maps.h"
#include "state/namespaces.h"
#include "state/process_memory.h"
#include "state/process_times.h"
#include "state/tasks.h"
#include "state/threads.h"

namespace vmsight {

/// What decides the validity of a process, as the kernel itself keeps it.
struct LifeMarks {
  std::uint64_t state = 0;  // task_struct.__state
  std::uint32_t exit_state = 0;
  std::uint32_t flags = 0;   // PF_*
  bool has_pid = false;      // struct pid still attached
  bool has_signals = false;  // sighand still attached
};
Validity judge(const LifeMarks& marks);

class ProcessesReader {
 public:
  static Result<ProcessesReader> resolve(Kernel& kernel);

  const Tasks& tasks() const { return tasks_; }

  /// The root directory of the guest's process 1.
  PathRef guest_root(Reader& reader, const Paths& paths) const;

  /// Appends the process and what belongs to it. False, with nothing appended, if the task is no
  /// longer the process it was. With the reader's fault set, what was appended is not complete.
  bool read(ProcessContext& process, const TaskIdentity& identity) const;

 private:
  struct Pointers {
    GuestVirt mm, fs, nsproxy, signal, thread_pid;
  };
  Pointers read_task(ProcessContext& process, GuestVirt task, Process& record) const;
  void read_credentials(ProcessContext& process, GuestVirt task, Process& record) const;
  void read_signal(ProcessContext& process, GuestVirt signal, Process& record) const;
  PathRef read_directories(ProcessContext& process, GuestVirt fs, Process& record) const;
  void take_from_living_thread(ProcessContext& process, Pointers& to, Process& record) const;
  void read_tables(ProcessContext& process, std::int32_t pid) const;
  std::int32_t terminal(Reader& reader, GuestVirt tty) const;

  Tasks tasks_;
  TaskNames names_;
  NamespacesReader namespaces_;
  TimesReader times_;
  ThreadsReader threads_;
  FileObjects objects_;
  ProcessMemoryReader memory_;
  std::optional<FilesReader> files_;
  std::optional<MapsReader> maps_;
  struct Offsets {
    Offset uid, gid, suid, sgid, euid, egid, fsuid, fsgid;
    Offset group, session, tty, tty_index, tty_driver, tty_group, driver_major, driver_minor;
    Offset fs_root, fs_pwd;
  } at_{};
  GuestVirt child_reaper_{};  // where init_pid_ns points to process 1
};

}  // namespace vmsight
