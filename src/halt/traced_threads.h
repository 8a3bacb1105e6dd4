// Threads of another process, stopped by ptrace for a moment.
//
// Nothing stays seized while it runs: a seized thread stops for every signal until its tracer
// answers, and QEMU kicks its vCPUs by signals all the time. Seizing anew costs some microseconds.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <chrono>
#include <span>
#include <vector>

#include "vmsight/result.h"

namespace vmsight {

/// Threads of one process that the calling thread traces. To the kernel the tracer is a thread, not
/// a process: every call must be made on the same one. The destructor lets go of them, and so does
/// the kernel when that thread ends. Signals sent to them meanwhile arrive afterwards, none is lost;
/// one that is stopped by job control (SIGSTOP) is so again afterwards.
class TracedThreads {
 public:
  using Clock = std::chrono::steady_clock;

  explicit TracedThreads(pid_t pid) : pid_(pid) {}
  TracedThreads(const TracedThreads&) = delete;
  TracedThreads& operator=(const TracedThreads&) = delete;
  ~TracedThreads() { static_cast<void>(release()); }

  /// Seizes and tells to stop; a thread that has ended is left out. `options` are PTRACE_O_*.
  /// permission if rights are missing, unsupported if another process traces it.
  Result<void> interrupt(std::span<const pid_t> tids, unsigned long options = 0);
  /// All stand: each thread is in a stop that no signal causes, where registers may be changed.
  /// Those that ended are left out. timeout if one does not stop.
  Result<void> wait(Clock::time_point deadline);
  /// Lets all run on. False if one could not be let go of, since it has not stopped: then only the
  /// end of the calling thread does so.
  [[nodiscard]] bool release();

  std::size_t size() const { return threads_.size(); }
  /// interrupt() was refused a thread that another guard has: that of another vmsight, or of one that was
  /// killed, which ends what it was doing. Both let go of it in a moment.
  bool met_guard() const { return met_guard_; }

  /// Of a thread that stands.
  Result<user_regs_struct> registers(pid_t tid) const;
  Result<void> set_registers(pid_t tid, const user_regs_struct& registers);
  /// Lets one run on until its next stop of any kind, and gives the status of that stop as
  /// waitpid() does. vm_gone if it ends; timeout, and then it must be interrupted again.
  Result<int> run_to_stop(pid_t tid, Clock::time_point deadline);

 private:
  struct Thread {
    pid_t tid = 0;
    bool stopped = false;
    bool ended = false;
  };
  Thread* find(pid_t tid);
  Result<void> seize(pid_t tid, unsigned long options);
  Result<void> wait_one(Thread& thread, Clock::time_point deadline);
  Error refusal(pid_t tid, int err);

  pid_t pid_;
  std::vector<Thread> threads_;
  bool met_guard_ = false;
};

/// Whether we may trace the process: rights, Yama, other tracers. Does not touch it.
Result<void> check_may_trace(pid_t pid);

}  // namespace vmsight
