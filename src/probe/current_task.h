// Who runs on a vCPU: the kernel's `current`, seen from outside.
//
//   GS base of the kernel = __per_cpu_offset[cpu]   ->   current_task of this CPU   ->   task_struct
//
// In user mode, and in the first instructions of the kernel's entry code, the user's GS base is
// loaded, and the kernel's is in the MSR that SWAPGS exchanges it with.
#pragma once

#include "state/members.h"
#include "vmsight/probe.h"
#include "vmsight/reader.h"

namespace vmsight {

/// The per-CPU variable that points to the task_struct.
GuestVirt current_task_variable(Members& members);

class CurrentTask {
 public:
  static Result<CurrentTask> resolve(Kernel& kernel);

  struct Found {
    ProbeTask task;
    GuestVirt mm;  // 0: a kernel thread
  };
  /// Nothing (task 0) if neither base is that of a CPU, or the task is unreadable.
  Found find(Reader& reader, std::uint64_t gs_base, std::uint64_t other_gs_base) const;

 private:
  std::vector<std::uint64_t> per_cpu_;  // sorted
  GuestVirt current_;                   // the per-CPU variable
  struct Offsets {
    Offset pid, tgid, comm, mm;
  } at_{};
};

}  // namespace vmsight
