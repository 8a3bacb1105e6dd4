#include "inject/x86_64/remote_syscall.h"

#include <elf.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <iterator>
#include <vector>

#include "base/clock.h"
#include "host/host_maps.h"
#include "host/process.h"

namespace vmsight {
namespace {

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::uint64_t look_after = second / 10;  // before it is asked whether the thread is there
constexpr std::uint64_t suspend_seccomp = 1u << 21;  // PTRACE_O_SUSPEND_SECCOMP
constexpr int stop_event = 128;                      // PTRACE_EVENT_STOP

template <typename T>
std::uint64_t raw(T* pointer) {
  return reinterpret_cast<std::uint64_t>(pointer);
}

/// Threads of a process: the main one, then the others.
std::vector<pid_t> threads_of(pid_t pid) {
  std::vector<pid_t> threads{pid};
  const auto listed = list_threads(pid);
  if (!listed) return threads;
  std::copy_if(listed->begin(), listed->end(), std::back_inserter(threads),
               [pid](pid_t tid) { return tid != pid; });
  return threads;
}

bool has_seccomp_filter(pid_t tid) {
  const auto status = read_proc_file(tid, "status");
  const auto mode = status ? parse_status_field(*status, "Seccomp") : std::nullopt;
  return mode && *mode != "0";
}

Error cannot_trace(pid_t pid, int err) {
  Error error = os_error(err, fmt::format("trace process {}", pid));
  if (err == ESRCH) {
    return {.code = ErrorCode::vm_gone,
            .message = fmt::format("the VM's process {} has ended", pid)};
  }
  error.code = ErrorCode::permission;
  if (const pid_t tracer = tracer_of(pid, pid); tracer != 0) {
    error.message += fmt::format(": process {} traces it", tracer);
    error.hint = "a thread has one tracer at most: end the debugger or strace that holds it";
  } else {
    error.hint = "run as root: CAP_SYS_PTRACE is needed";
  }
  return error;
}

}  // namespace

long Tracing::ptrace(int request, pid_t tid, std::uint64_t address, std::uint64_t data) {
  return ::syscall(SYS_ptrace, request, tid, address, data);
}

pid_t Tracing::wait(pid_t tid, int& status, std::uint64_t timeout_ns) {
  const Stopwatch watch;
  sigset_t child;
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  while (true) {
    const pid_t got = ::waitpid(tid, &status, __WALL | WNOHANG);
    if (got != 0) return got;
    if (watch.elapsed_ns() >= timeout_ns) return 0;
    // SIGCHLDs are not counted: one that came for another thread may have hidden ours.
    const timespec while_waiting{.tv_sec = 0, .tv_nsec = 2'000'000};
    ::sigtimedwait(&child, nullptr, &while_waiting);
  }
}

Result<BorrowedThread> BorrowedThread::borrow(pid_t pid, Tracing& tracing) {
  std::optional<Error> first;
  for (const pid_t tid : threads_of(pid)) {
    BorrowedThread thread(pid, tid, tracing);
    if (auto seized = thread.seize(); !seized) {
      if (!first) first = std::move(seized).error();
      continue;
    }
    VMSIGHT_TRY_VOID(thread.stop());
    VMSIGHT_TRY_VOID(thread.save());
    VMSIGHT_TRY_VOID(thread.find_instruction());
    return thread;
  }
  return *std::move(first);
}

Result<void> BorrowedThread::check(pid_t pid) {
  for (const pid_t tid : threads_of(pid)) {
    if (tracer_of(pid, tid) == 0) return {};
  }
  return cannot_trace(pid, EPERM);
}

BorrowedThread::BorrowedThread(BorrowedThread&& other) noexcept
    : pid_(other.pid_),
      tid_(other.tid_),
      tracing_(other.tracing_),
      at_(std::exchange(other.at_, At::gone)),
      changed_(other.changed_),
      options_(other.options_),
      saved_(other.saved_),
      mask_(other.mask_),
      instruction_(other.instruction_),
      way_back_(other.way_back_),
      copy_(other.copy_) {}

BorrowedThread::~BorrowedThread() { static_cast<void>(give_back()); }

Error BorrowedThread::failed(const char* what) const {
  const int err = errno;
  if (err == ESRCH) {
    return {.code = ErrorCode::vm_gone,
            .message = fmt::format("the VM's process {} has ended", pid_)};
  }
  return os_error(err, fmt::format("{} thread {} of process {}", what, tid_, pid_));
}

/// A sandboxed QEMU forbids some calls to itself; they are ours, so its filter is told to wait.
Result<void> BorrowedThread::seize() {
  options_ = PTRACE_O_TRACESYSGOOD;
  if (has_seccomp_filter(tid_)) {
    options_ |= suspend_seccomp;
    if (tracing_->ptrace(PTRACE_SEIZE, tid_, 0, options_) == 0) return {};
    // Without CAP_SYS_ADMIN the filter stays on: it may still allow what is to be called.
    options_ = PTRACE_O_TRACESYSGOOD;
  }
  if (tracing_->ptrace(PTRACE_SEIZE, tid_, 0, options_) == 0) return {};
  return cannot_trace(pid_, errno);
}

Result<void> BorrowedThread::stop() {
  if (persistently(PTRACE_INTERRUPT, 0) != 0) return failed("interrupt");
  return await(At::trap, PTRACE_CONT, second);
}

Result<void> BorrowedThread::save() {
  if (tracing_->ptrace(PTRACE_GETREGS, tid_, 0, raw(&saved_)) != 0) {
    return failed("read the registers of");
  }
  if (saved_.cs != 0x33) {  // __USER_CS of a 64-bit process, arch/x86/include/asm/segment.h
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("borrow thread {}: it does not run 64-bit code", tid_)};
  }
  if (tracing_->ptrace(PTRACE_GETSIGMASK, tid_, sizeof(mask_), raw(&mask_)) != 0) {
    return failed("read the signal mask of");
  }
  VMSIGHT_TRY(const std::vector<std::byte> state, vector_registers());
  way_back_ = WayBack::prepare(pid_, saved_, state, mask_);
  return {};
}

Result<std::vector<std::byte>> BorrowedThread::vector_registers() {
  constexpr std::size_t enough = 16 << 10;  // with AMX 11 KiB
  std::vector<std::byte> state(enough);
  iovec area{state.data(), state.size()};
  if (tracing_->ptrace(PTRACE_GETREGSET, tid_, NT_X86_XSTATE, raw(&area)) == 0) {
    state.resize(area.iov_len);
    return state;
  }
  if (errno != ENODEV && errno != EINVAL) return failed("read the registers of");
  state.resize(sizeof(user_fpregs_struct));  // a processor without XSAVE
  if (tracing_->ptrace(PTRACE_GETFPREGS, tid_, 0, raw(state.data())) == 0) return state;
  return failed("read the registers of");
}

/// From a stop at which its registers were set, so that it cannot be left with its signals blocked.
Result<void> BorrowedThread::block_signals() {
  std::uint64_t all = ~0ULL;
  if (tracing_->ptrace(PTRACE_SETSIGMASK, tid_, sizeof(all), raw(&all)) == 0) return {};
  return failed("block the signals of");
}

namespace {

constexpr std::array<std::byte, 2> syscall_code{std::byte{0x0f}, std::byte{0x05}};

std::size_t read_process(pid_t pid, HostVirt from, std::span<std::byte> into) {
  const iovec local{into.data(), into.size()};
  const iovec remote{reinterpret_cast<void*>(from.raw()), into.size()};
  const ssize_t got = ::process_vm_readv(pid, &local, 1, &remote, 1, 0);
  return got < 0 ? 0 : static_cast<std::size_t>(got);
}

/// A `syscall` in code that is no writable memory (a translator's buffer changes under us).
std::optional<HostVirt> find_syscall(pid_t pid, const HostMapping& mapping) {
  constexpr std::uint64_t enough = 2 << 20;  // libc has hundreds in so much code
  if (!mapping.executable || mapping.writable || !mapping.readable) return std::nullopt;
  std::vector<std::byte> code(std::min(mapping.size(), enough));
  code.resize(read_process(pid, mapping.start, code));
  const auto at = std::search(code.begin(), code.end(), syscall_code.begin(), syscall_code.end());
  if (at == code.end()) return std::nullopt;
  return mapping.start + static_cast<std::uint64_t>(at - code.begin());
}

}  // namespace

/// That of the way back; else the instruction that the thread stands behind, if it is in a system
/// call; else one of the vDSO; else any.
Result<void> BorrowedThread::find_instruction() {
  if (way_back_) {
    instruction_ = way_back_->call;
    return {};
  }
  std::array<std::byte, 2> behind{};
  if (saved_.orig_rax != ~0ULL &&
      read_process(pid_, HostVirt(saved_.rip - 2), behind) == behind.size() &&
      behind == syscall_code) {
    instruction_ = HostVirt(saved_.rip - 2);
    return {};
  }
  VMSIGHT_TRY(const std::string text, read_proc_file(pid_, "maps"));
  VMSIGHT_TRY(std::vector<HostMapping> maps, parse_maps(text));
  std::stable_partition(maps.begin(), maps.end(),
                        [](const HostMapping& mapping) { return mapping.path == "[vdso]"; });
  for (const HostMapping& mapping : maps) {
    if (const auto found = find_syscall(pid_, mapping)) {
      instruction_ = *found;
      return {};
    }
  }
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("borrow thread {}: no system call instruction in the code of "
                                      "process {}",
                                      tid_, pid_)};
}

Result<void> BorrowedThread::set_registers(const user_regs_struct& registers) {
  if (tracing_->ptrace(PTRACE_SETREGS, tid_, 0, raw(&registers)) == 0) return {};
  return failed("set the registers of");
}

Result<std::uint64_t> BorrowedThread::call(const char* what, long number,
                                           std::initializer_list<std::uint64_t> arguments) {
  user_regs_struct registers = saved_;
  registers.rip = instruction_.raw();
  registers.rax = static_cast<std::uint64_t>(number);
  registers.orig_rax = ~0ULL;
  if (way_back_) registers.rsp = way_back_->frame.raw();
  unsigned long long* const places[] = {&registers.rdi, &registers.rsi, &registers.rdx,
                                        &registers.r10, &registers.r8,  &registers.r9};
  std::size_t count = 0;
  for (const std::uint64_t argument : arguments) *places[count++] = argument;
  const bool first = !std::exchange(changed_, true);
  VMSIGHT_TRY_VOID(set_registers(registers));
  if (first) {
    VMSIGHT_TRY_VOID(block_signals());
  }
  VMSIGHT_TRY_VOID(run(At::entry));
  VMSIGHT_TRY_VOID(run(At::exit));
  if (persistently(PTRACE_GETREGS, raw(&registers)) != 0) return failed("read the registers of");
  const auto result = static_cast<std::int64_t>(registers.rax);
  if (result < 0 && result > -4096) {
    return os_error(static_cast<int>(-result), fmt::format("{} in process {}", what, pid_));
  }
  return registers.rax;
}

Result<BorrowedThread::Copy> BorrowedThread::copy_process(std::uint64_t clone_flags) {
  copy_ = 0;
  // A stack that is not there: a copy that ever ran would end at its first use of it.
  constexpr std::uint64_t no_stack = 8;
  // Not asked for earlier: a thread that QEMU starts itself would be caught too.
  if (tracing_->ptrace(PTRACE_SETOPTIONS, tid_, 0, options_ | PTRACE_O_TRACECLONE) != 0) {
    return failed("set ptrace options of");
  }
  VMSIGHT_TRY(const std::uint64_t number, call("clone", SYS_clone, {clone_flags, no_stack}));
  if (copy_ == 0) {
    return Error{.code = ErrorCode::timeout,
                 .message = fmt::format("copy process {}: the copy was not seen", pid_)};
  }
  return Copy{.pid = copy_, .pid_in_vm = static_cast<pid_t>(number)};
}

/// For what must not fail once a thread was seized or a call was made. The kernel has no reason to,
/// but the end of the thread.
long BorrowedThread::persistently(int request, std::uint64_t data) {
  long done = -1;
  for (int i = 0; i < 3 && done != 0; ++i) done = tracing_->ptrace(request, tid_, 0, data);
  return done;
}

/// Lets the thread run to the beginning or the end of a system call.
Result<void> BorrowedThread::run(At until) {
  if (tracing_->ptrace(PTRACE_SYSCALL, tid_, 0, 0) != 0) return failed("run");
  return await(until, PTRACE_SYSCALL, std::nullopt);
}

/// Waits until the thread stands at `wanted`; lets it go on, by `how`, from stops on the way.
Result<void> BorrowedThread::await(At wanted, int how, std::optional<std::uint64_t> timeout_ns) {
  while (true) {
    int status = 0;
    const pid_t got = tracing_->wait(tid_, status, timeout_ns.value_or(look_after));
    if (got == 0 &&
        thread_has_ended(tid_)) {  // the main thread, and we trace others: no word comes
      at_ = At::gone;
      errno = ESRCH;
      return failed("wait for");
    }
    if (got == 0 && !timeout_ns) continue;
    if (got == 0) {
      return Error{.code = ErrorCode::timeout,
                   .message = fmt::format("thread {} of process {} did not stop within a second",
                                          tid_, pid_)};
    }
    if (got < 0) {
      if (errno == EINTR) continue;
      return failed("wait for");
    }
    VMSIGHT_TRY(const bool there, arrived(status, wanted, how));
    if (there) return {};
  }
}

Result<bool> BorrowedThread::arrived(int status, At wanted, int how) {
  if (!WIFSTOPPED(status)) {
    at_ = At::gone;
    errno = ESRCH;
    return failed("wait for");
  }
  const int event = status >> 16;
  const int signal = WSTOPSIG(status);
  if (event == 0 && signal == (SIGTRAP | 0x80) && wanted != At::trap) {
    at_ = wanted;
    return true;
  }
  if (event == stop_event && wanted == At::trap) {
    at_ = At::trap;
    return true;
  }
  const bool is_signal = event == 0 && signal != (SIGTRAP | 0x80);
  const std::uint64_t deliver = is_signal ? static_cast<unsigned>(signal) : 0;
  if (event == PTRACE_EVENT_CLONE) {
    unsigned long copy = 0;
    if (persistently(PTRACE_GETEVENTMSG, raw(&copy)) == 0) copy_ = static_cast<pid_t>(copy);
  }
  if (persistently(how, deliver) != 0) return failed("let go on");
  return false;
}

/// From wherever the thread stands to a stop from which the kernel restarts an interrupted call.
Result<void> BorrowedThread::to_trap() {
  if (at_ == At::trap) return {};
  if (at_ == At::entry) {  // a call that has not begun is skipped
    user_regs_struct none = saved_;
    none.orig_rax = ~0ULL;
    if (way_back_) {  // until it stands it is on that
      none.rip = way_back_->restore.raw();
      none.rsp = way_back_->frame.raw() + sizeof(std::uint64_t);
    }
    VMSIGHT_TRY_VOID(set_registers(none));
  }
  if (persistently(PTRACE_INTERRUPT, 0) != 0) return failed("interrupt");
  if (tracing_->ptrace(PTRACE_CONT, tid_, 0, 0) != 0) return failed("run");
  return await(At::trap, PTRACE_CONT, std::nullopt);
}

Result<void> BorrowedThread::give_back() {
  if (at_ == At::running || at_ == At::gone) return {};
  if (changed_) {
    VMSIGHT_TRY_VOID(to_trap());
    if (tracing_->ptrace(PTRACE_SETSIGMASK, tid_, sizeof(mask_), raw(&mask_)) != 0) {
      return failed("restore the signals of");
    }
    VMSIGHT_TRY_VOID(set_registers(saved_));
    changed_ = false;
  }
  if (tracing_->ptrace(PTRACE_DETACH, tid_, 0, 0) != 0) return failed("let go of");
  at_ = At::gone;
  return {};
}

}  // namespace vmsight
