#include "sandbox/call_filter.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <memory>
#include <string_view>

namespace vmsight {
namespace {

/// They work on what the process has: its memory, its descriptors, its threads, time.
constexpr std::array allowed{
    // memory
    SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
    // open descriptors
    SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(lseek), SCMP_SYS(close), SCMP_SYS(fstat),
    SCMP_SYS(fstatfs), SCMP_SYS(poll), SCMP_SYS(ppoll),
    // sockets
    SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(sendmsg),
    // threads, and the end
    SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(wait4),
    // signals to this process
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    // time, names of this process, chance
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday),
    SCMP_SYS(time), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getuid), SCMP_SYS(geteuid),
    SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(getrandom), SCMP_SYS(sysinfo), SCMP_SYS(uname)};

/// Programs ask for files and go on without: a locale, a time zone.
constexpr std::array refused{SCMP_SYS(open),     SCMP_SYS(openat),     SCMP_SYS(openat2),
                             SCMP_SYS(stat),     SCMP_SYS(lstat),      SCMP_SYS(statx),
                             SCMP_SYS(access),   SCMP_SYS(faccessat),  SCMP_SYS(faccessat2),
                             SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getdents64)};

/// TCGETS2 of asm-generic/ioctls.h, which newer C libraries use; its header clashes with theirs.
constexpr std::uint32_t terminal_settings = 0x802c542a;

class Filter {
 public:
  Filter() : context_(::seccomp_init(SCMP_ACT_TRAP), ::seccomp_release) {}

  explicit operator bool() const { return context_ != nullptr; }

  template <typename... Conditions>
  void allow(int call, Conditions... conditions) {
    add(SCMP_ACT_ALLOW, call, conditions...);
  }
  void refuse(int call, int error) { add(SCMP_ACT_ERRNO(static_cast<std::uint32_t>(error)), call); }

  Result<void> load() {
    // All threads: the C library may have made one that we do not know of.
    note(::seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_TSYNC, 1));
    if (failed_ == 0) failed_ = -::seccomp_load(context_.get());
    if (failed_ != 0) return os_error(failed_, "filter the system calls of this process");
    return {};
  }

 private:
  template <typename... Conditions>
  void add(std::uint32_t action, int call, Conditions... conditions) {
    note(::seccomp_rule_add(context_.get(), action, call, sizeof...(conditions), conditions...));
  }
  void note(int result) {
    if (result != 0 && failed_ == 0) failed_ = -result;
  }

  std::unique_ptr<void, void (*)(scmp_filter_ctx)> context_;
  int failed_ = 0;
};

void allow_parts(Filter& filter, const SandboxRights& rights) {
  // Not what was typed: a terminal that is open for output can be read, too.
  for (const int call : {SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(pread64), SCMP_SYS(preadv)})
    filter.allow(call, SCMP_A0_32(SCMP_CMP_GT, STDERR_FILENO));
  // To whom a socket is connected, and to nobody else.
  filter.allow(SCMP_SYS(sendto), SCMP_A4_64(SCMP_CMP_EQ, 0));
  // Memory of ours, but no code.
  filter.allow(SCMP_SYS(mmap), SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  filter.allow(SCMP_SYS(mprotect), SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  // fstat() of newer C libraries. A name may be given with it: what that tells is whether a file exists.
  filter.allow(SCMP_SYS(newfstatat), SCMP_A3_32(SCMP_CMP_EQ, AT_EMPTY_PATH));
  // Whether a descriptor is a terminal, and how wide it is. TIOCSTI would type into it.
  for (const std::uint32_t question :
       {std::uint32_t{TCGETS}, terminal_settings, std::uint32_t{TIOCGWINSZ}})
    filter.allow(SCMP_SYS(ioctl), SCMP_A1_32(SCMP_CMP_EQ, question));
  filter.allow(SCMP_SYS(fcntl), SCMP_A1_32(SCMP_CMP_EQ, F_GETFL));
  filter.allow(SCMP_SYS(fcntl),
               SCMP_A1_32(SCMP_CMP_EQ, F_DUPFD_CLOEXEC));  // another number for what is open
  // Threads, no processes. Of clone3 the flags cannot be seen: the C library then takes clone.
  filter.allow(SCMP_SYS(clone),
               SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM));
  filter.refuse(SCMP_SYS(clone3), ENOSYS);
  filter.allow(SCMP_SYS(prlimit64), SCMP_A0_32(SCMP_CMP_EQ, 0), SCMP_A2_64(SCMP_CMP_EQ, 0));
  // abort().
  filter.allow(SCMP_SYS(tgkill), SCMP_A0_32(SCMP_CMP_EQ, static_cast<std::uint32_t>(::getpid())));
  for (const int descriptor : rights.writes) {
    for (const int call : {SCMP_SYS(pwrite64), SCMP_SYS(ftruncate)})
      filter.allow(call, SCMP_A0_32(SCMP_CMP_EQ, static_cast<std::uint32_t>(descriptor)));
  }
  if (rights.reads != 0) {
    filter.allow(SCMP_SYS(process_vm_readv),
                 SCMP_A0_32(SCMP_CMP_EQ, static_cast<std::uint32_t>(rights.reads)));
  }
}

/// Says which call it was: what is left of this process cannot go on without it.
void on_refused_call(int, siginfo_t* info, void*) {
  constexpr std::string_view said = "vmsight: error: the sandbox refused system call ";
  constexpr std::string_view hint = "\n  hint: report it; --no-sandbox goes on without\n";
  std::array<char, said.size() + hint.size() + 16> line{};
  char* at = std::copy(said.begin(), said.end(), line.data());
  std::array<char, 12> digits{};
  std::size_t count = 0;
  for (unsigned number = static_cast<unsigned>(info->si_syscall); count == 0 || number != 0;
       number /= 10)
    digits[count++] = static_cast<char>('0' + number % 10);
  while (count != 0) *at++ = digits[--count];
  at = std::copy(hint.begin(), hint.end(), at);
  static_cast<void>(
      ::write(STDERR_FILENO, line.data(), static_cast<std::size_t>(at - line.data())));
  constexpr int internal = 70;
  ::_exit(internal);
}

}  // namespace

Result<void> filter_system_calls(const SandboxRights& rights) {
  struct sigaction action {};
  action.sa_sigaction = on_refused_call;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  if (::sigaction(SIGSYS, &action, nullptr) != 0) return os_error(errno, "handle SIGSYS");
  Filter filter;
  if (!filter)
    return Error{.code = ErrorCode::os, .message = "filter the system calls of this process"};
  for (const int call : allowed) filter.allow(call);
  for (const int call : refused) filter.refuse(call, EACCES);
  allow_parts(filter, rights);
  return filter.load();
}

bool has_system_call_filters() {
  constexpr unsigned trap = SECCOMP_RET_TRAP;
  return ::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &trap) == 0;
}

}  // namespace vmsight
