// CPU time of a thread group.
#pragma once

#include "state/process_context.h"
#include "state/tasks.h"

namespace vmsight {

/// CPU time in ns. `runtime` is exact; user and system time are sampled at clock ticks.
struct CpuTime {
  std::uint64_t user = 0, system = 0, runtime = 0;
};

/// Divides the exact run time in the proportion of the samples, never going back behind what was
/// told `before`: what /proc shows (cputime_adjust() in kernel/sched/cputime.c).
CpuTime adjust_cpu_time(const CpuTime& sampled, const CpuTime& before);

class TimesReader {
 public:
  static Result<TimesReader> resolve(Kernel& kernel, const Tasks& tasks);

  /// Sets threads, utime_ns and stime_ns; process.shared.threads has its threads then, the main
  /// thread first.
  void read(ProcessContext& process, GuestVirt leader, GuestVirt signal, Process& record) const;

 private:
  Tasks tasks_;
  struct Offsets {
    Offset user, system, runtime, before_user, before_system;  // of signal_struct
  } at_{};
};

}  // namespace vmsight
