// How tasks and CPUs get on: what the scheduler counts of them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "state/members.h"
#include "vmsight/reader.h"

namespace vmsight::detect {

struct TaskActivity {
  std::uint64_t voluntary = 0, involuntary = 0;  // switches
  std::uint64_t transfers =
      0;                     // system calls that read or write; 0 where the kernel does not count
  std::uint64_t ran_ns = 0;  // on a CPU; the kernel adds to it at ticks and switches
};

struct CpuActivity {
  std::uint64_t switches = 0;    // of its run queue
  std::uint64_t interrupts = 0;  // of its timer
  std::uint32_t running = 0;     // tasks that want to run
  GuestVirt current;             // the task that runs
  bool idle = false;             // that is the idle task
};

class ActivityReader {
 public:
  static Result<ActivityReader> resolve(Kernel& kernel);
  /// nullopt if the task is not what it was: another PID, or unreadable.
  std::optional<TaskActivity> read_task(Reader& reader, GuestVirt task, std::int32_t pid) const;
  /// By number; nullopt for CPUs that the kernel did not set up, or that cannot be read.
  std::vector<std::optional<CpuActivity>> read_cpus(Kernel& kernel, Reader& reader) const;
  /// PID and name of a task.
  std::optional<std::int32_t> pid_of(Reader& reader, GuestVirt task) const;
  std::string name_of(Reader& reader, GuestVirt task) const;

 private:
  struct Offsets {
    Offset pid, comm, voluntary, involuntary, ran, reads, writes;
    Offset switches, running, current, idle;
  } at_{};
  GuestVirt run_queues_, timers_;
};

}  // namespace vmsight::detect
