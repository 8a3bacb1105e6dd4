#include "inject/process_copy.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>

namespace vmsight {
namespace {

/// No exit signal, so that QEMU's own waiting for children never sees the copy.
constexpr std::uint64_t clone_flags = CLONE_FILES | CLONE_FS;
constexpr std::uint64_t patience_ns = 5'000'000'000;

Result<void> advise(BorrowedThread& thread, const RamBlock& block, int advice) {
  auto done = thread.call("madvise", SYS_madvise,
                          {block.host.raw(), block.size, static_cast<std::uint64_t>(advice)});
  if (!done) return std::move(done).error();
  return {};
}

/// Guest RAM is in children made meanwhile.
class Forkable {
 public:
  explicit Forkable(BorrowedThread& thread) : thread_(thread) {}
  Forkable(const Forkable&) = delete;
  Forkable& operator=(const Forkable&) = delete;
  ~Forkable() { static_cast<void>(undo()); }
  Result<void> add(const RamBlock& block) {
    blocks_.push_back(&block);  // first: undoing what was not done harms nothing
    return advise(thread_, block, MADV_DOFORK);
  }
  Result<void> undo() {
    while (!blocks_.empty()) {
      VMSIGHT_TRY_VOID(advise(thread_, *blocks_.back(), MADV_DONTFORK));
      blocks_.pop_back();
    }
    return {};
  }

 private:
  BorrowedThread& thread_;
  std::vector<const RamBlock*> blocks_;
};

Error explain(Error error) {
  if (error.os_errno == EPERM) {
    error.hint = "QEMU runs with -sandbox spawn=deny: run vmsight with CAP_SYS_ADMIN";
  }
  if (error.os_errno == ENOMEM) {
    error.hint =
        "the host would have to promise memory for a second copy of the guest: see "
        "vm.overcommit_memory";
  }
  return error;
}

}  // namespace

Result<ProcessCopy> ProcessCopy::make(pid_t pid, std::span<const RamBlock> blocks,
                                      Tracing& tracing) {
  ProcessCopy made(pid, {}, tracing);  // removed after the thread was given back, if we fail
  VMSIGHT_TRY(BorrowedThread thread, BorrowedThread::borrow(pid, tracing));
  {
    Forkable forkable(thread);
    for (const RamBlock& block : blocks) VMSIGHT_TRY_VOID(forkable.add(block));
    auto copy = thread.copy_process(clone_flags);
    if (!copy) return explain(std::move(copy).error());
    made.copy_ = *copy;
    VMSIGHT_TRY_VOID(made.hold());
    VMSIGHT_TRY_VOID(forkable.undo());
  }
  VMSIGHT_TRY_VOID(thread.give_back());
  return made;
}

/// Waits until the copy stands, and lets the kernel kill it when we end.
Result<void> ProcessCopy::hold() {
  int status = 0;
  if (tracing_->wait(copy_.pid, status, patience_ns) != copy_.pid || !WIFSTOPPED(status)) {
    return Error{.code = ErrorCode::timeout,
                 .message = fmt::format("copy process {}: the copy does not stand", vm_)};
  }
  if (tracing_->ptrace(PTRACE_SETOPTIONS, copy_.pid, 0, PTRACE_O_EXITKILL) == 0) return {};
  return os_error(errno, fmt::format("hold the copy of process {}", vm_));
}

ProcessCopy::ProcessCopy(ProcessCopy&& other) noexcept
    : vm_(other.vm_), copy_(std::exchange(other.copy_, {})), tracing_(other.tracing_) {}

ProcessCopy& ProcessCopy::operator=(ProcessCopy&& other) noexcept {
  if (this != &other) {
    static_cast<void>(remove());
    vm_ = other.vm_;
    copy_ = std::exchange(other.copy_, {});
    tracing_ = other.tracing_;
  }
  return *this;
}

ProcessCopy::~ProcessCopy() { static_cast<void>(remove()); }

Result<void> ProcessCopy::remove() {
  const BorrowedThread::Copy copy = std::exchange(copy_, {});
  if (copy.pid == 0) return {};
  ::kill(copy.pid, SIGKILL);
  int status = 0;
  // As its tracer we are told of its end first; QEMU can reap it only after us.
  while (true) {
    const pid_t got = tracing_->wait(copy.pid, status, patience_ns);
    if (got == 0) {
      return Error{
          .code = ErrorCode::timeout,
          .message = fmt::format("end the copy {} of process {}: it does not end", copy.pid, vm_)};
    }
    if (got < 0 || WIFEXITED(status) || WIFSIGNALED(status)) break;
  }
  auto reaped = reap_copy(vm_, copy.pid_in_vm, *tracing_);
  if (!reaped) reaped = reap_copy(vm_, copy.pid_in_vm, *tracing_);  // by another thread, perhaps
  return reaped;
}

Result<void> reap_copy(pid_t vm, pid_t pid_in_vm, Tracing& tracing) {
  VMSIGHT_TRY(BorrowedThread thread, BorrowedThread::borrow(vm, tracing));
  auto reaped = thread.call("wait4", SYS_wait4,
                            {static_cast<std::uint64_t>(pid_in_vm), 0, __WALL | WNOHANG, 0});
  if (!reaped) return std::move(reaped).error();
  if (*reaped != 0) return thread.give_back();
  return Error{.code = ErrorCode::not_found,
               .message = fmt::format("reap process {}: it has not ended", pid_in_vm)};
}

Result<void> keep_out_of_children(pid_t vm, std::span<const RamBlock> blocks, Tracing& tracing) {
  VMSIGHT_TRY(BorrowedThread thread, BorrowedThread::borrow(vm, tracing));
  for (const RamBlock& block : blocks) {
    auto done = advise(thread, block, MADV_DONTFORK);
    if (!done && done.error().os_errno != ENOMEM) return done;  // it was unplugged meanwhile
  }
  return thread.give_back();
}

}  // namespace vmsight
