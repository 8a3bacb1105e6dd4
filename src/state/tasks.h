// The kernel's list of processes, walked while the kernel may be changing it.
//
//   init_task.tasks -> leader.tasks -> leader.tasks -> ... -> init_task.tasks
//
// Each task on it leads a thread group; its threads hang on signal_struct.thread_head. The kernel
// appends at the end and removes anywhere. A task that was removed, freed and made into another
// one while we stood on it would silently skip the rest of the list: but then its back pointer no
// longer names the task we came from, so every hop is checked in both directions.
#pragma once

#include <cstdint>
#include <vector>

#include "state/members.h"
#include "vmsight/reader.h"

namespace vmsight {

/// A process as the list tells it: where, and which one.
struct TaskIdentity {
  GuestVirt task;
  std::int32_t pid = 0;
  std::uint64_t start_ns = 0;  // with pid: no other process before the next boot
  friend bool operator==(const TaskIdentity&, const TaskIdentity&) = default;
};

class Tasks {
 public:
  static Result<Tasks> resolve(Kernel& kernel);

  struct Offsets {
    Offset state, state_size, exit_state, flags, cpu, prio, static_prio;
    Offset tasks, thread_node, pid, tgid, real_parent, comm, stack;
    Offset mm, files, fs, nsproxy, real_cred, signal, sighand, thread_pid;
    Offset start_boottime, utime, stime, sum_exec_runtime, before_user, before_system;
    Offset policy, rt_priority;
    Offset thread_head, nr_threads;
  };
  const Offsets& at() const { return at_; }
  GuestVirt init_task() const { return init_task_; }

  /// All leaders but init_task itself. Faults the reader if the list does not hold together;
  /// `into` then has what came before the break.
  void walk(Reader& reader, std::size_t limit, std::vector<TaskIdentity>& into) const;
  /// The same, believing forward pointers alone: for a list that stays broken.
  void walk_forward(Reader& reader, std::size_t limit, std::vector<TaskIdentity>& into) const;

  /// The threads of a process, the leader first. Faults the reader as walk() does.
  void walk_threads(Reader& reader, GuestVirt signal, std::vector<GuestVirt>& into) const;

  TaskIdentity identity(Reader& reader, GuestVirt task) const;

  /// False once the kernel has taken the task off the list, though its bytes may still be there.
  bool is_listed(Reader& reader, GuestVirt task) const;

  /// The letter of /proc/PID/stat.
  char state_letter(Reader& reader, GuestVirt task) const;

 private:
  Offsets at_{};
  GuestVirt init_task_{};
};

}  // namespace vmsight
