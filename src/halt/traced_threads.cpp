#include "halt/traced_threads.h"

#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <fmt/format.h>
#include <sched.h>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <optional>

#include "host/option_list.h"
#include "host/process.h"

namespace vmsight {
namespace {

/// A stop that PTRACE_INTERRUPT or job control made, not the delivery of a signal.
bool is_plain_stop(int status) { return WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_STOP; }

/// waitpid() has no deadline: first it is tried again at once, as a stop takes some ten
/// microseconds, then with small pauses.
class Patience {
 public:
  explicit Patience(TracedThreads::Clock::time_point deadline) : deadline_(deadline) {}
  bool go_on() {
    constexpr int eager = 20;
    constexpr timespec nap{.tv_sec = 0, .tv_nsec = 20'000};
    if (++tries_ < eager) {
      ::sched_yield();
      return true;
    }
    if (TracedThreads::Clock::now() >= deadline_) return false;
    ::nanosleep(&nap, nullptr);
    return true;
  }

 private:
  TracedThreads::Clock::time_point deadline_;
  int tries_ = 0;
};

/// The next status of a traced thread; nullopt at the deadline.
std::optional<int> next_status(pid_t tid, TracedThreads::Clock::time_point deadline) {
  Patience patience(deadline);
  while (true) {
    int status = 0;
    const pid_t got = ::waitpid(tid, &status, __WALL | WNOHANG);
    if (got == tid) return status;
    if (got < 0 && errno == ECHILD) return W_EXITCODE(0, SIGKILL);  // somebody else reaped it
    if (!patience.go_on()) return std::nullopt;
  }
}

Error thread_ended(pid_t tid) {
  return {.code = ErrorCode::vm_gone, .message = fmt::format("thread {} has ended", tid)};
}

std::string process_name(pid_t pid) {
  auto comm = read_proc_file(pid, "comm");
  if (!comm) return "?";
  comm->resize(std::min(comm->find('\n'), comm->size()));
  return *comm;
}

Error no_rights(pid_t pid) {
  Error error = os_error(EPERM, fmt::format("trace process {}", pid));
  error.hint =
      "run as root or as the user of the QEMU process; with Yama "
      "(kernel.yama.ptrace_scope > 0) CAP_SYS_PTRACE is needed";
  return error;
}

Error traced_already(pid_t tid, pid_t tracer) {
  return {.code = ErrorCode::unsupported,
          .message = fmt::format("trace thread {}: process {} ({}) traces it already", tid, tracer,
                                 process_name(tracer)),
          .hint = "a thread has one tracer: end gdb, strace or the other vmsight"};
}

}  // namespace

Result<void> TracedThreads::interrupt(std::span<const pid_t> tids, unsigned long options) {
  for (const pid_t tid : tids) {
    if (find(tid) == nullptr) VMSIGHT_TRY_VOID(seize(tid, options));
  }
  return {};
}

Result<void> TracedThreads::seize(pid_t tid, unsigned long options) {
  if (::ptrace(PTRACE_SEIZE, tid, nullptr, options) != 0) {
    if (errno == ESRCH) return {};
    return refusal(tid, errno);
  }
  threads_.push_back({.tid = tid});
  if (::ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr) != 0 && errno != ESRCH) {
    return os_error(errno, fmt::format("stop thread {}", tid));
  }
  return {};
}

Error TracedThreads::refusal(pid_t tid, int err) {
  if (err != EPERM) return os_error(err, fmt::format("trace thread {}", tid));
  const pid_t tracer = tracer_of(pid_, tid);
  met_guard_ = tracer != 0 && process_name(tracer) == "vmsight-guard";
  return tracer != 0 ? traced_already(tid, tracer) : no_rights(pid_);
}

Result<void> TracedThreads::wait(Clock::time_point deadline) {
  for (Thread& thread : threads_) {
    if (!thread.stopped) VMSIGHT_TRY_VOID(wait_one(thread, deadline));
  }
  std::erase_if(threads_, [](const Thread& thread) { return thread.ended; });
  return {};
}

Result<void> TracedThreads::wait_one(Thread& thread, Clock::time_point deadline) {
  while (true) {
    const auto status = next_status(thread.tid, deadline);
    if (!status) {
      return Error{.code = ErrorCode::timeout,
                   .message = fmt::format("stop thread {}: it did not stop in time", thread.tid),
                   .hint = "it waits in the host's kernel, for a disk or for swap; try again"};
    }
    if (!WIFSTOPPED(*status)) {
      thread.ended = true;
      return {};
    }
    if (is_plain_stop(*status)) {
      thread.stopped = true;
      return {};
    }
    // A signal came first, which also cancelled the stop we asked for: ask again, then let the
    // thread have its signal (the stop follows before its handler runs).
    const int signal = *status >> 16 == 0 ? WSTOPSIG(*status) : 0;
    ::ptrace(PTRACE_INTERRUPT, thread.tid, nullptr, nullptr);
    ::ptrace(PTRACE_CONT, thread.tid, nullptr, static_cast<unsigned long>(signal));
  }
}

bool TracedThreads::release() {
  // Only a thread that stands can be let go of, or one that ended; the latter must be reaped.
  const auto deadline = Clock::now() + std::chrono::milliseconds(100);
  bool all = true;
  for (Thread& thread : threads_) {
    if (!thread.stopped && !wait_one(thread, deadline)) {
      all = false;
      continue;
    }
    if (thread.ended || ::ptrace(PTRACE_DETACH, thread.tid, nullptr, nullptr) == 0) continue;
    const auto status = next_status(thread.tid, deadline);  // killed while it stood
    all = all && status && !WIFSTOPPED(*status);
  }
  threads_.clear();
  return all;
}

TracedThreads::Thread* TracedThreads::find(pid_t tid) {
  const auto thread = std::find_if(threads_.begin(), threads_.end(),
                                   [tid](const Thread& t) { return t.tid == tid; });
  return thread == threads_.end() ? nullptr : &*thread;
}

Result<user_regs_struct> TracedThreads::registers(pid_t tid) const {
  user_regs_struct registers{};
  if (::ptrace(PTRACE_GETREGS, tid, nullptr, &registers) == 0) return registers;
  if (errno == ESRCH) return thread_ended(tid);
  return os_error(errno, fmt::format("read registers of thread {}", tid));
}

Result<void> TracedThreads::set_registers(pid_t tid, const user_regs_struct& registers) {
  if (::ptrace(PTRACE_SETREGS, tid, nullptr, &registers) == 0) return {};
  if (errno == ESRCH) return thread_ended(tid);
  return os_error(errno, fmt::format("set registers of thread {}", tid));
}

Result<int> TracedThreads::run_to_stop(pid_t tid, Clock::time_point deadline) {
  Thread* thread = find(tid);
  VMSIGHT_CHECK(thread != nullptr && thread->stopped);
  if (::ptrace(PTRACE_CONT, tid, nullptr, nullptr) != 0) return thread_ended(tid);
  thread->stopped = false;
  const auto status = next_status(tid, deadline);
  if (!status) {
    return Error{.code = ErrorCode::timeout,
                 .message = fmt::format("wait for thread {}: it did not stop in time", tid)};
  }
  thread->stopped = WIFSTOPPED(*status);
  thread->ended = !thread->stopped;
  if (thread->ended) return thread_ended(tid);
  return *status;
}

Result<void> check_may_trace(pid_t pid) {
  // process_vm_readv asks for the same rights as PTRACE_SEIZE, before it looks at the address.
  std::byte nothing{};
  const iovec local{&nothing, 1};
  const iovec remote{nullptr, 1};
  if (::process_vm_readv(pid, &local, 1, &remote, 1, 0) < 0 && errno != EFAULT) {
    if (errno == EPERM) return no_rights(pid);
    return os_error(errno, fmt::format("trace process {}", pid));
  }
  const pid_t tracer = tracer_of(pid, pid);
  if (tracer != 0) return traced_already(pid, tracer);
  return {};
}

}  // namespace vmsight
