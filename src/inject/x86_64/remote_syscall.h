// Borrowing a thread of the QEMU process for a few system calls.
//
// The thread is seized with ptrace, stopped, given the registers of a system call, and put back. It
// notices nothing: a call of its own that was interrupted is restarted by the kernel as after any
// ptrace stop (its orig_rax is put back with the rest, and a borrowed call has orig_rax = -1 so
// that the kernel does not "restart" that one), and all its signals wait until it has its registers
// again.
//
// What fails, and what is left then:
//
//   seize                 nothing was done; the next thread is tried
//   interrupt, first wait the thread runs; the tracer's exit lets go of it, so it must exit
//   (timeout) read registers, mask  detached, as it was set registers, start  a call that has not
//   begun is taken back, then all is put back the call itself       its errno is the error; all is
//   put back by give_back() its result            asked for again: what the call did must be known
//   to be undone the thread dies       vm_gone; there is nothing to put back
//
// The tracer must be a process that nobody kills in between: see undo/guard.h. If it is killed
// all the same, the thread finds its own way back (inject/x86_64/way_back.h): a call that was begun is made to
// its end, then the thread goes on as if nothing had been. Where there is no way back (a C library
// that is no glibc), a thread that stood in a system call is borrowed at that call's own
// instruction, with its own stack and all registers that the call preserves but those of the
// borrowed arguments, as if its call had returned early.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

#include "inject/x86_64/way_back.h"
#include "vmsight/address.h"
#include "vmsight/result.h"

namespace vmsight {

/// The system calls of a tracer, so that a test can let each of them fail.
class Tracing {
 public:
  virtual ~Tracing() = default;
  virtual long ptrace(int request, pid_t tid, std::uint64_t address, std::uint64_t data);
  /// The next stop or end of the thread; 0 if there was none in this time. SIGCHLD must be blocked.
  virtual pid_t wait(pid_t tid, int& status, std::uint64_t timeout_ns);
};

class BorrowedThread {
 public:
  /// Stops a thread of the process that nobody traces, the main thread if possible. permission, if
  /// there is none; timeout if it does not stop.
  static Result<BorrowedThread> borrow(pid_t pid, Tracing& tracing);
  /// permission, if a debugger holds all threads already. Changes nothing.
  static Result<void> check(pid_t pid);
  BorrowedThread(BorrowedThread&& other) noexcept;
  BorrowedThread& operator=(BorrowedThread&&) = delete;
  /// As give_back().
  ~BorrowedThread();

  /// Runs one system call; only as many argument registers as given are changed. Waits for its end,
  /// however long it takes. os, with the call's errno, if it fails; `what` names it for the
  /// message.
  Result<std::uint64_t> call(const char* what, long number,
                             std::initializer_list<std::uint64_t> arguments);

  /// A copy of the process, made by clone() without CLONE_VM. It never runs: it comes to stand,
  /// traced by us, before its first instruction.
  struct Copy {
    pid_t pid = 0;        // as we see it
    pid_t pid_in_vm = 0;  // as QEMU sees it
  };
  Result<Copy> copy_process(std::uint64_t clone_flags);

  /// Memory of the thread's stack that it does not use: below the red zone.
  HostVirt scratch() const { return HostVirt((saved_.rsp - 1024) & ~63ULL); }

  /// The thread goes on as if nothing had been.
  Result<void> give_back();

 private:
  enum class At { running, trap, entry, exit, gone };

  BorrowedThread(pid_t pid, pid_t tid, Tracing& tracing)
      : pid_(pid), tid_(tid), tracing_(&tracing) {}
  Result<void> seize();
  Result<void> stop();
  Result<void> save();
  Result<std::vector<std::byte>> vector_registers();
  Result<void> block_signals();
  Result<void> find_instruction();
  Result<void> run(At until);
  Result<void> await(At wanted, int how, std::optional<std::uint64_t> timeout_ns);
  Result<bool> arrived(int status, At wanted, int how);
  Result<void> set_registers(const user_regs_struct& registers);
  Result<void> to_trap();
  long persistently(int request, std::uint64_t data);
  Error failed(const char* what) const;

  pid_t pid_ = 0, tid_ = 0;
  Tracing* tracing_ = nullptr;
  At at_ = At::running;
  bool changed_ = false;  // its registers and its signal mask
  std::uint64_t options_ = 0;
  user_regs_struct saved_{};
  std::uint64_t mask_ = 0;  // of its signals
  HostVirt instruction_;    // a `syscall`
  std::optional<WayBack> way_back_;
  pid_t copy_ = 0;  // of the last clone()
};

}  // namespace vmsight
