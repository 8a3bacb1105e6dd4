// Which arguments have names: system calls by the position of an argument, which is their ABI; the
// kernel's functions and structures by name.
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <algorithm>

#include "probe/flags.h"

namespace vmsight {
namespace {

using K = FlagKind;

/// O_TMPFILE has O_DIRECTORY in it.
bool creates_nothing(std::uint64_t flags) {
  return (flags & O_CREAT) == 0 && (flags & O_TMPFILE) != O_TMPFILE;
}
bool sets_fd_flags(std::uint64_t command) { return command == F_SETFD; }
bool sets_file_flags(std::uint64_t command) { return command == F_SETFL; }
bool asks_only(std::uint64_t command) {
  constexpr std::uint64_t asking[] = {F_GETFD,    F_GETFL,      F_GETOWN,   F_GETSIG,
                                      F_GETLEASE, F_GETPIPE_SZ, F_GET_SEALS};
  return std::find(std::begin(asking), std::end(asking), command) != std::end(asking);
}
bool takes_number(std::uint64_t command) {
  return command == F_DUPFD || command == F_DUPFD_CLOEXEC || command == F_SETPIPE_SZ;
}
bool gives_no_address(std::uint64_t flags) {
  return (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) == 0;
}
bool is_internet(std::uint64_t family) { return family == AF_INET || family == AF_INET6; }
bool is_netlink(std::uint64_t family) { return family == AF_NETLINK; }
bool is_socket_level(std::uint64_t level) { return level == SOL_SOCKET; }
bool is_tcp_level(std::uint64_t level) { return level == IPPROTO_TCP; }
/// How many arguments a futex operation has; a bit for each behind the third.
bool futex_has(std::uint64_t operation, unsigned argument) {
  switch (operation & 0x7f) {  // FUTEX_CMD_MASK
    case FUTEX_WAKE:
    case FUTEX_UNLOCK_PI:
    case FUTEX_TRYLOCK_PI:
      return false;
    case FUTEX_WAIT:
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
      return argument == 3;
    case FUTEX_WAIT_BITSET:
      return argument == 3 || argument == 5;
    case FUTEX_WAKE_BITSET:
      return argument == 5;
    case FUTEX_REQUEUE:
      return argument != 5;
    case FUTEX_WAIT_REQUEUE_PI:
      return argument != 5;
    default:
      return true;
  }
}
bool takes_signal(std::uint64_t option) { return option == PR_SET_PDEATHSIG; }
bool takes_one_argument(std::uint64_t option) {
  return option == PR_SET_NAME || option == PR_GET_NAME || option == PR_SET_PDEATHSIG;
}
bool futex_lacks_timeout(std::uint64_t operation) { return !futex_has(operation, 3); }
bool futex_lacks_address(std::uint64_t operation) { return !futex_has(operation, 4); }
bool futex_lacks_value(std::uint64_t operation) { return !futex_has(operation, 5); }

// Sorted by name.
constexpr FlagRule rules[] = {
    {"accept4", 3, K::socket_flags},
    {"access", 1, K::access_mode},
    {"arch_prctl", 0, K::arch_prctl_option},
    {"arch_prctl", 1, K::hexadecimal},
    {"bpf", 0, K::bpf_command},
    {"brk", 0, K::hexadecimal},
    {"chmod", 1, K::octal},
    {"clock_adjtime", 0, K::clock},
    {"clock_getres", 0, K::clock},
    {"clock_gettime", 0, K::clock},
    {"clock_nanosleep", 0, K::clock},
    {"clock_nanosleep", 1, K::timer_flags},
    {"clock_settime", 0, K::clock},
    {"clone", 0, K::clone_flags},
    {"clone", 1, K::hexadecimal},
    {"clone", 4, K::hexadecimal},
    {"close_range", 2, K::close_range},
    {"creat", 1, K::octal},
    {"dup3", 2, K::pipe_flags},
    {"epoll_create1", 0, K::pipe_flags},
    {"epoll_ctl", 1, K::epoll_operation},
    {"eventfd2", 1, K::eventfd_flags},
    {"execveat", 0, K::directory},
    {"execveat", 4, K::at_flags},
    {"faccessat", 0, K::directory},
    {"faccessat", 2, K::access_mode},
    {"faccessat2", 0, K::directory},
    {"faccessat2", 2, K::access_mode},
    {"faccessat2", 3, K::access_flags},
    {"fadvise64", 3, K::file_advice},
    {"fallocate", 1, K::fallocate_mode},
    {"fchmod", 1, K::octal},
    {"fchmodat", 0, K::directory},
    {"fchmodat", 2, K::octal},
    {"fchmodat2", 0, K::directory},
    {"fchmodat2", 2, K::octal},
    {"fchmodat2", 3, K::at_flags},
    {"fchownat", 0, K::directory},
    {"fchownat", 4, K::at_flags},
    {"fcntl", 1, K::fcntl_command},
    {"fcntl", 2, K::fd_flags, 1, sets_fd_flags},
    {"fcntl", 2, K::open_flags, 1, sets_file_flags},
    {"fcntl", 2, K::unused, 1, asks_only},
    {"fcntl", 2, K::none, 1, takes_number},
    {"fcntl", 2, K::hexadecimal},
    {"flock", 1, K::file_lock},
    {"futex", 1, K::futex_operation},
    {"futex", 3, K::unused, 1, futex_lacks_timeout},
    {"futex", 4, K::unused, 1, futex_lacks_address},
    {"futex", 5, K::unused, 1, futex_lacks_value},
    {"futex", 5, K::hexadecimal},
    {"futimesat", 0, K::directory},
    {"getitimer", 0, K::interval_timer},
    {"getpriority", 0, K::priority_of},
    {"getrandom", 2, K::random_flags},
    {"getrlimit", 0, K::resource},
    {"getrusage", 0, K::usage_of},
    {"getsockopt", 1, K::socket_level},
    {"getsockopt", 2, K::socket_option, 1, is_socket_level},
    {"getsockopt", 2, K::tcp_option, 1, is_tcp_level},
    {"inotify_add_watch", 2, K::inotify_mask},
    {"inotify_init1", 0, K::pipe_flags},
    {"ioctl", 1, K::ioctl_request},
    {"ioctl", 2, K::hexadecimal},
    {"kill", 1, K::signal},
    {"linkat", 0, K::directory},
    {"linkat", 2, K::directory},
    {"linkat", 4, K::at_flags},
    {"lseek", 2, K::whence},
    {"madvise", 0, K::hexadecimal},
    {"madvise", 2, K::memory_advice},
    {"membarrier", 0, K::membarrier},
    {"memfd_create", 1, K::memfd_flags},
    {"mkdir", 1, K::octal},
    {"mkdirat", 0, K::directory},
    {"mkdirat", 2, K::octal},
    {"mknod", 1, K::octal},
    {"mknodat", 0, K::directory},
    {"mknodat", 2, K::octal},
    {"mlock", 0, K::hexadecimal},
    {"mlock2", 0, K::hexadecimal},
    {"mlock2", 2, K::lock_flags},
    {"mlockall", 0, K::lock_all},
    {"mmap", 0, K::hexadecimal},
    {"mmap", 2, K::protection},
    {"mmap", 3, K::map_flags},
    {"mmap", 5, K::hexadecimal},
    {"mount", 3, K::mount_flags},
    {"mprotect", 0, K::hexadecimal},
    {"mprotect", 2, K::protection},
    {"mremap", 0, K::hexadecimal},
    {"mremap", 3, K::remap_flags},
    {"mremap", 4, K::unused, 3, gives_no_address},
    {"mremap", 4, K::hexadecimal},
    {"msync", 0, K::hexadecimal},
    {"msync", 2, K::sync_flags},
    {"munlock", 0, K::hexadecimal},
    {"munmap", 0, K::hexadecimal},
    {"name_to_handle_at", 0, K::directory},
    {"name_to_handle_at", 4, K::at_flags},
    {"newfstatat", 0, K::directory},
    {"newfstatat", 3, K::at_flags},
    {"open", 1, K::open_flags},
    {"open", 2, K::unused, 1, creates_nothing},
    {"open", 2, K::octal},
    {"openat", 0, K::directory},
    {"openat", 2, K::open_flags},
    {"openat", 3, K::unused, 2, creates_nothing},
    {"openat", 3, K::octal},
    {"openat2", 0, K::directory},
    {"pidfd_send_signal", 1, K::signal},
    {"pipe2", 1, K::pipe_flags},
    {"pkey_mprotect", 0, K::hexadecimal},
    {"pkey_mprotect", 2, K::protection},
    {"prctl", 0, K::prctl_option},
    {"prctl", 1, K::signal, 0, takes_signal},
    {"prctl", 1, K::hexadecimal},
    {"prctl", 2, K::unused, 0, takes_one_argument},
    {"prctl", 3, K::unused, 0, takes_one_argument},
    {"prctl", 4, K::unused, 0, takes_one_argument},
    {"prctl", 2, K::hexadecimal},
    {"prctl", 3, K::hexadecimal},
    {"prctl", 4, K::hexadecimal},
    {"preadv2", 5, K::rw_flags},
    {"prlimit64", 1, K::resource},
    {"process_madvise", 3, K::memory_advice},
    {"ptrace", 0, K::ptrace_request},
    {"ptrace", 2, K::hexadecimal},
    {"ptrace", 3, K::hexadecimal},
    {"pwritev2", 5, K::rw_flags},
    {"readlinkat", 0, K::directory},
    {"reboot", 0, K::hexadecimal},
    {"reboot", 1, K::hexadecimal},
    {"reboot", 2, K::reboot_command},
    {"recvfrom", 3, K::message_flags},
    {"recvmmsg", 3, K::message_flags},
    {"recvmsg", 2, K::message_flags},
    {"renameat", 0, K::directory},
    {"renameat", 2, K::directory},
    {"renameat2", 0, K::directory},
    {"renameat2", 2, K::directory},
    {"renameat2", 4, K::rename_flags},
    {"rt_sigaction", 0, K::signal},
    {"rt_sigprocmask", 0, K::signal_mask_how},
    {"rt_sigqueueinfo", 1, K::signal},
    {"rt_tgsigqueueinfo", 2, K::signal},
    {"sched_get_priority_max", 0, K::policy},
    {"sched_get_priority_min", 0, K::policy},
    {"sched_setscheduler", 1, K::policy},
    {"seccomp", 0, K::seccomp_operation},
    {"sendmmsg", 3, K::message_flags},
    {"sendmsg", 2, K::message_flags},
    {"sendto", 3, K::message_flags},
    {"setitimer", 0, K::interval_timer},
    {"setns", 1, K::clone_flags},
    {"setpriority", 0, K::priority_of},
    {"setrlimit", 0, K::resource},
    {"setsockopt", 1, K::socket_level},
    {"setsockopt", 2, K::socket_option, 1, is_socket_level},
    {"setsockopt", 2, K::tcp_option, 1, is_tcp_level},
    {"shmat", 1, K::hexadecimal},
    {"shutdown", 1, K::shutdown_how},
    {"signalfd4", 3, K::pipe_flags},
    {"socket", 0, K::family},
    {"socket", 1, K::socket_type},
    {"socket", 2, K::ip_protocol, 0, is_internet},
    {"socket", 2, K::netlink_protocol, 0, is_netlink},
    {"socketpair", 0, K::family},
    {"socketpair", 1, K::socket_type},
    {"splice", 5, K::splice_flags},
    {"statx", 0, K::directory},
    {"statx", 2, K::at_flags},
    {"statx", 3, K::statx_mask},
    {"symlinkat", 1, K::directory},
    {"sync_file_range", 3, K::sync_range},
    {"tee", 3, K::splice_flags},
    {"tgkill", 2, K::signal},
    {"timer_create", 0, K::clock},
    {"timer_settime", 1, K::timer_flags},
    {"timerfd_create", 0, K::clock},
    {"timerfd_create", 1, K::pipe_flags},
    {"timerfd_settime", 1, K::timer_flags},
    {"tkill", 1, K::signal},
    {"umask", 0, K::octal},
    {"umount2", 1, K::umount_flags},
    {"unlinkat", 0, K::directory},
    {"unlinkat", 2, K::unlink_flags},
    {"unshare", 0, K::clone_flags},
    {"utimensat", 0, K::directory},
    {"utimensat", 3, K::at_flags},
    {"vmsplice", 3, K::splice_flags},
    {"wait4", 2, K::wait_options},
    {"waitid", 0, K::id_type},
    {"waitid", 3, K::wait_options},
};
static_assert(std::is_sorted(std::begin(rules), std::end(rules),
                             [](const FlagRule& a, const FlagRule& b) { return a.call < b.call; }));

/// "" stands for any function, or for any type.
struct FunctionRule {
  std::string_view function, argument, type;
  FlagKind kind;
};
constexpr FunctionRule functions[] = {
    {"", "", "fmode_t", K::file_mode},
    {"", "dfd", "int", K::directory},
    {"", "olddfd", "int", K::directory},
    {"", "newdfd", "int", K::directory},
    {"", "whence", "int", K::whence},
    {"", "sig", "int", K::signal},
    {"", "clone_flags", "long unsigned int", K::clone_flags},
    {"", "clone_flags", "u64", K::clone_flags},
    {"cap_capable", "cap", "int", K::capability},
    {"capable", "cap", "int", K::capability},
    {"ns_capable", "cap", "int", K::capability},
    {"security_capable", "cap", "int", K::capability},
    {"__sock_create", "family", "int", K::family},
    {"__sock_create", "type", "int", K::socket_type},
    {"__sys_socket", "family", "int", K::family},
    {"__sys_socket", "type", "int", K::socket_type},
    {"sock_create", "family", "int", K::family},
    {"sock_create", "type", "int", K::socket_type},
    {"do_mmap", "prot", "", K::protection},
    {"do_mmap", "flags", "", K::map_flags},
    {"do_sys_open", "flags", "int", K::open_flags},
    {"generic_permission", "mask", "int", K::may},
    {"inode_permission", "mask", "int", K::may},
    {"security_file_permission", "mask", "int", K::may},
    {"security_inode_permission", "mask", "int", K::may},
    {"security_socket_create", "family", "int", K::family},
    {"security_socket_create", "type", "int", K::socket_type},
    {"vm_mmap_pgoff", "prot", "", K::protection},
    {"vm_mmap_pgoff", "flag", "", K::map_flags},
};

struct MemberRule {
  std::string_view structure, member;
  FlagKind kind;
};
constexpr MemberRule members[] = {
    {"open_how", "flags", K::open_flags},
    {"open_how", "mode", K::octal},
    {"open_how", "resolve", K::resolve},
    {"kernel_clone_args", "flags", K::clone_flags},
    {"kernel_clone_args", "exit_signal", K::signal},
    {"file", "f_flags", K::open_flags},
    {"file", "f_mode", K::file_mode},
};

}  // namespace

std::span<const FlagRule> flag_rules(std::string_view system_call) {
  const auto before = [](const FlagRule& rule, std::string_view name) { return rule.call < name; };
  const auto first = std::lower_bound(std::begin(rules), std::end(rules), system_call, before);
  auto last = first;
  while (last != std::end(rules) && last->call == system_call) ++last;
  return {first, last};
}

FlagKind function_flags(std::string_view function, std::string_view argument,
                        std::string_view type) {
  const auto fits = [](std::string_view wanted, std::string_view is) {
    return wanted.empty() || wanted == is;
  };
  for (const FunctionRule& rule : functions) {
    if (fits(rule.function, function) && fits(rule.argument, argument) && fits(rule.type, type))
      return rule.kind;
  }
  return FlagKind::none;
}

FlagKind member_flags(std::string_view structure, std::string_view member) {
  for (const MemberRule& rule : members) {
    if (rule.structure == structure && rule.member == member) return rule.kind;
  }
  return FlagKind::none;
}

}  // namespace vmsight
