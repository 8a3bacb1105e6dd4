// Processes, time and sockets.
#include <asm/prctl.h>
#include <linux/bpf.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <csignal>
#include <ctime>

#include "probe/flag_tables.h"

namespace vmsight {
namespace {

#define NAME(constant) flag_name(#constant, constant)

constexpr FlagName families[] = {
    NAME(AF_UNSPEC),    NAME(AF_UNIX),      NAME(AF_INET),  NAME(AF_AX25), NAME(AF_IPX),
    NAME(AF_APPLETALK), NAME(AF_X25),       NAME(AF_INET6), NAME(AF_KEY),  NAME(AF_NETLINK),
    NAME(AF_PACKET),    NAME(AF_RDS),       NAME(AF_PPPOX), NAME(AF_IB),   NAME(AF_CAN),
    NAME(AF_TIPC),      NAME(AF_BLUETOOTH), NAME(AF_ALG),   NAME(AF_NFC),  NAME(AF_VSOCK),
    NAME(AF_KCM),       NAME(AF_QIPCRTR),   NAME(AF_SMC),   NAME(AF_XDP)};
constexpr FlagName socket_types[] = {NAME(SOCK_STREAM), NAME(SOCK_DGRAM),     NAME(SOCK_RAW),
                                     NAME(SOCK_RDM),    NAME(SOCK_SEQPACKET), NAME(SOCK_DCCP),
                                     NAME(SOCK_PACKET)};
constexpr FlagName socket_bits[] = {NAME(SOCK_CLOEXEC), NAME(SOCK_NONBLOCK)};
constexpr FlagName ip_protocols[] = {
    NAME(IPPROTO_IP),  NAME(IPPROTO_ICMP),   NAME(IPPROTO_IGMP), NAME(IPPROTO_TCP),
    NAME(IPPROTO_UDP), NAME(IPPROTO_IPV6),   NAME(IPPROTO_GRE),  NAME(IPPROTO_ESP),
    NAME(IPPROTO_AH),  NAME(IPPROTO_ICMPV6), NAME(IPPROTO_SCTP), NAME(IPPROTO_UDPLITE),
    NAME(IPPROTO_RAW), NAME(IPPROTO_MPTCP)};
constexpr FlagName netlink_protocols[] = {
    NAME(NETLINK_ROUTE),     NAME(NETLINK_USERSOCK),  NAME(NETLINK_SOCK_DIAG),
    NAME(NETLINK_XFRM),      NAME(NETLINK_SELINUX),   NAME(NETLINK_AUDIT),
    NAME(NETLINK_CONNECTOR), NAME(NETLINK_NETFILTER), NAME(NETLINK_KOBJECT_UEVENT),
    NAME(NETLINK_GENERIC),   NAME(NETLINK_CRYPTO)};
constexpr FlagName message_bits[] = {
    NAME(MSG_OOB),        NAME(MSG_PEEK),     NAME(MSG_DONTROUTE), NAME(MSG_CTRUNC),
    NAME(MSG_TRUNC),      NAME(MSG_DONTWAIT), NAME(MSG_EOR),       NAME(MSG_WAITALL),
    NAME(MSG_CONFIRM),    NAME(MSG_ERRQUEUE), NAME(MSG_NOSIGNAL),  NAME(MSG_MORE),
    NAME(MSG_WAITFORONE), NAME(MSG_ZEROCOPY), NAME(MSG_FASTOPEN),  NAME(MSG_CMSG_CLOEXEC)};
constexpr FlagName shutdowns[] = {NAME(SHUT_RD), NAME(SHUT_WR), NAME(SHUT_RDWR)};
constexpr FlagName levels[] = {NAME(SOL_SOCKET),  NAME(IPPROTO_IP),   NAME(IPPROTO_TCP),
                               NAME(IPPROTO_UDP), NAME(IPPROTO_IPV6), NAME(IPPROTO_RAW),
                               NAME(SOL_PACKET),  NAME(SOL_NETLINK)};
constexpr FlagName socket_options[] = {
    NAME(SO_DEBUG),         NAME(SO_REUSEADDR),     NAME(SO_TYPE),        NAME(SO_ERROR),
    NAME(SO_DONTROUTE),     NAME(SO_BROADCAST),     NAME(SO_SNDBUF),      NAME(SO_RCVBUF),
    NAME(SO_KEEPALIVE),     NAME(SO_OOBINLINE),     NAME(SO_PRIORITY),    NAME(SO_LINGER),
    NAME(SO_REUSEPORT),     NAME(SO_PASSCRED),      NAME(SO_PEERCRED),    NAME(SO_RCVLOWAT),
    NAME(SO_SNDLOWAT),      NAME(SO_RCVTIMEO),      NAME(SO_SNDTIMEO),    NAME(SO_BINDTODEVICE),
    NAME(SO_ATTACH_FILTER), NAME(SO_DETACH_FILTER), NAME(SO_PEERNAME),    NAME(SO_TIMESTAMP),
    NAME(SO_ACCEPTCONN),    NAME(SO_PEERSEC),       NAME(SO_SNDBUFFORCE), NAME(SO_RCVBUFFORCE),
    NAME(SO_PASSSEC),       NAME(SO_MARK),          NAME(SO_PROTOCOL),    NAME(SO_DOMAIN),
    NAME(SO_BUSY_POLL),     NAME(SO_INCOMING_CPU),  NAME(SO_ZEROCOPY)};
constexpr FlagName tcp_options[] = {
    NAME(TCP_NODELAY),      NAME(TCP_MAXSEG),       NAME(TCP_CORK),     NAME(TCP_KEEPIDLE),
    NAME(TCP_KEEPINTVL),    NAME(TCP_KEEPCNT),      NAME(TCP_SYNCNT),   NAME(TCP_LINGER2),
    NAME(TCP_DEFER_ACCEPT), NAME(TCP_WINDOW_CLAMP), NAME(TCP_INFO),     NAME(TCP_QUICKACK),
    NAME(TCP_CONGESTION),   NAME(TCP_USER_TIMEOUT), NAME(TCP_FASTOPEN), NAME(TCP_NOTSENT_LOWAT),
    NAME(TCP_ULP)};

constexpr FlagName signals[] = {
    NAME(SIGHUP),  NAME(SIGINT),    NAME(SIGQUIT), NAME(SIGILL),    NAME(SIGTRAP), NAME(SIGABRT),
    NAME(SIGBUS),  NAME(SIGFPE),    NAME(SIGKILL), NAME(SIGUSR1),   NAME(SIGSEGV), NAME(SIGUSR2),
    NAME(SIGPIPE), NAME(SIGALRM),   NAME(SIGTERM), NAME(SIGSTKFLT), NAME(SIGCHLD), NAME(SIGCONT),
    NAME(SIGSTOP), NAME(SIGTSTP),   NAME(SIGTTIN), NAME(SIGTTOU),   NAME(SIGURG),  NAME(SIGXCPU),
    NAME(SIGXFSZ), NAME(SIGVTALRM), NAME(SIGPROF), NAME(SIGWINCH),  NAME(SIGIO),   NAME(SIGPWR),
    NAME(SIGSYS)};
constexpr FlagName mask_hows[] = {NAME(SIG_BLOCK), NAME(SIG_UNBLOCK), NAME(SIG_SETMASK)};
constexpr FlagName clone_bits[] = {NAME(CLONE_VM),
                                   NAME(CLONE_FS),
                                   NAME(CLONE_FILES),
                                   NAME(CLONE_SIGHAND),
                                   NAME(CLONE_PIDFD),
                                   NAME(CLONE_PTRACE),
                                   NAME(CLONE_VFORK),
                                   NAME(CLONE_PARENT),
                                   NAME(CLONE_THREAD),
                                   NAME(CLONE_NEWNS),
                                   NAME(CLONE_SYSVSEM),
                                   NAME(CLONE_SETTLS),
                                   NAME(CLONE_PARENT_SETTID),
                                   NAME(CLONE_CHILD_CLEARTID),
                                   NAME(CLONE_DETACHED),
                                   NAME(CLONE_UNTRACED),
                                   NAME(CLONE_CHILD_SETTID),
                                   NAME(CLONE_NEWCGROUP),
                                   NAME(CLONE_NEWUTS),
                                   NAME(CLONE_NEWIPC),
                                   NAME(CLONE_NEWUSER),
                                   NAME(CLONE_NEWPID),
                                   NAME(CLONE_NEWNET),
                                   NAME(CLONE_IO)};
constexpr FlagName wait_bits[] = {NAME(WNOHANG), NAME(WUNTRACED),   NAME(WEXITED), NAME(WCONTINUED),
                                  NAME(WNOWAIT), NAME(__WNOTHREAD), NAME(__WALL),  NAME(__WCLONE)};
constexpr FlagName id_types[] = {NAME(P_ALL), NAME(P_PID), NAME(P_PGID), NAME(P_PIDFD)};
constexpr FlagName futexes[] = {NAME(FUTEX_WAIT),
                                NAME(FUTEX_WAKE),
                                NAME(FUTEX_FD),
                                NAME(FUTEX_REQUEUE),
                                NAME(FUTEX_CMP_REQUEUE),
                                NAME(FUTEX_WAKE_OP),
                                NAME(FUTEX_LOCK_PI),
                                NAME(FUTEX_UNLOCK_PI),
                                NAME(FUTEX_TRYLOCK_PI),
                                NAME(FUTEX_WAIT_BITSET),
                                NAME(FUTEX_WAKE_BITSET),
                                NAME(FUTEX_WAIT_REQUEUE_PI),
                                NAME(FUTEX_CMP_REQUEUE_PI),
                                NAME(FUTEX_LOCK_PI2),
                                NAME(FUTEX_WAIT_PRIVATE),
                                NAME(FUTEX_WAKE_PRIVATE),
                                NAME(FUTEX_REQUEUE_PRIVATE),
                                NAME(FUTEX_CMP_REQUEUE_PRIVATE),
                                NAME(FUTEX_WAKE_OP_PRIVATE),
                                NAME(FUTEX_LOCK_PI_PRIVATE),
                                NAME(FUTEX_UNLOCK_PI_PRIVATE),
                                NAME(FUTEX_TRYLOCK_PI_PRIVATE),
                                NAME(FUTEX_WAIT_BITSET_PRIVATE),
                                NAME(FUTEX_WAKE_BITSET_PRIVATE),
                                NAME(FUTEX_WAIT_REQUEUE_PI_PRIVATE),
                                NAME(FUTEX_CMP_REQUEUE_PI_PRIVATE),
                                NAME(FUTEX_LOCK_PI2_PRIVATE)};
constexpr FlagName futex_bits[] = {NAME(FUTEX_CLOCK_REALTIME)};
constexpr FlagName prctls[] = {NAME(PR_SET_PDEATHSIG),
                               NAME(PR_GET_PDEATHSIG),
                               NAME(PR_GET_DUMPABLE),
                               NAME(PR_SET_DUMPABLE),
                               NAME(PR_GET_KEEPCAPS),
                               NAME(PR_SET_KEEPCAPS),
                               NAME(PR_SET_NAME),
                               NAME(PR_GET_NAME),
                               NAME(PR_GET_SECCOMP),
                               NAME(PR_SET_SECCOMP),
                               NAME(PR_CAPBSET_READ),
                               NAME(PR_CAPBSET_DROP),
                               NAME(PR_GET_TSC),
                               NAME(PR_SET_TSC),
                               NAME(PR_GET_SECUREBITS),
                               NAME(PR_SET_SECUREBITS),
                               NAME(PR_SET_TIMERSLACK),
                               NAME(PR_GET_TIMERSLACK),
                               NAME(PR_SET_MM),
                               NAME(PR_SET_PTRACER),
                               NAME(PR_SET_CHILD_SUBREAPER),
                               NAME(PR_GET_CHILD_SUBREAPER),
                               NAME(PR_SET_NO_NEW_PRIVS),
                               NAME(PR_GET_NO_NEW_PRIVS),
                               NAME(PR_GET_TID_ADDRESS),
                               NAME(PR_SET_THP_DISABLE),
                               NAME(PR_GET_THP_DISABLE),
                               NAME(PR_CAP_AMBIENT),
                               NAME(PR_GET_SPECULATION_CTRL),
                               NAME(PR_SET_SPECULATION_CTRL),
                               NAME(PR_SET_VMA)};
constexpr FlagName arch_prctls[] = {NAME(ARCH_SET_GS), NAME(ARCH_SET_FS),    NAME(ARCH_GET_FS),
                                    NAME(ARCH_GET_GS), NAME(ARCH_GET_CPUID), NAME(ARCH_SET_CPUID)};
constexpr FlagName random_bits[] = {NAME(GRND_NONBLOCK), NAME(GRND_RANDOM), NAME(GRND_INSECURE)};
constexpr FlagName seccomps[] = {NAME(SECCOMP_SET_MODE_STRICT), NAME(SECCOMP_SET_MODE_FILTER),
                                 NAME(SECCOMP_GET_ACTION_AVAIL), NAME(SECCOMP_GET_NOTIF_SIZES)};
constexpr FlagName bpfs[] = {NAME(BPF_MAP_CREATE),       NAME(BPF_MAP_LOOKUP_ELEM),
                             NAME(BPF_MAP_UPDATE_ELEM),  NAME(BPF_MAP_DELETE_ELEM),
                             NAME(BPF_MAP_GET_NEXT_KEY), NAME(BPF_PROG_LOAD),
                             NAME(BPF_OBJ_PIN),          NAME(BPF_OBJ_GET),
                             NAME(BPF_PROG_ATTACH),      NAME(BPF_PROG_DETACH),
                             NAME(BPF_PROG_TEST_RUN),    NAME(BPF_PROG_GET_NEXT_ID),
                             NAME(BPF_MAP_GET_NEXT_ID),  NAME(BPF_PROG_GET_FD_BY_ID),
                             NAME(BPF_MAP_GET_FD_BY_ID), NAME(BPF_OBJ_GET_INFO_BY_FD),
                             NAME(BPF_PROG_QUERY),       NAME(BPF_RAW_TRACEPOINT_OPEN),
                             NAME(BPF_BTF_LOAD),         NAME(BPF_BTF_GET_FD_BY_ID),
                             NAME(BPF_TASK_FD_QUERY),    NAME(BPF_MAP_LOOKUP_AND_DELETE_ELEM),
                             NAME(BPF_MAP_FREEZE),       NAME(BPF_LINK_CREATE),
                             NAME(BPF_LINK_UPDATE),      NAME(BPF_ENABLE_STATS),
                             NAME(BPF_ITER_CREATE),      NAME(BPF_LINK_DETACH),
                             NAME(BPF_PROG_BIND_MAP)};
constexpr FlagName ptraces[] = {
    NAME(PTRACE_TRACEME),         NAME(PTRACE_PEEKTEXT),    NAME(PTRACE_PEEKDATA),
    NAME(PTRACE_PEEKUSER),        NAME(PTRACE_POKETEXT),    NAME(PTRACE_POKEDATA),
    NAME(PTRACE_POKEUSER),        NAME(PTRACE_CONT),        NAME(PTRACE_KILL),
    NAME(PTRACE_SINGLESTEP),      NAME(PTRACE_GETREGS),     NAME(PTRACE_SETREGS),
    NAME(PTRACE_ATTACH),          NAME(PTRACE_DETACH),      NAME(PTRACE_SYSCALL),
    NAME(PTRACE_SETOPTIONS),      NAME(PTRACE_GETEVENTMSG), NAME(PTRACE_GETSIGINFO),
    NAME(PTRACE_SETSIGINFO),      NAME(PTRACE_GETREGSET),   NAME(PTRACE_SETREGSET),
    NAME(PTRACE_SEIZE),           NAME(PTRACE_INTERRUPT),   NAME(PTRACE_LISTEN),
    NAME(PTRACE_GET_SYSCALL_INFO)};
constexpr FlagName membarriers[] = {NAME(MEMBARRIER_CMD_QUERY),
                                    NAME(MEMBARRIER_CMD_GLOBAL),
                                    NAME(MEMBARRIER_CMD_GLOBAL_EXPEDITED),
                                    NAME(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED),
                                    NAME(MEMBARRIER_CMD_PRIVATE_EXPEDITED),
                                    NAME(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)};
constexpr FlagName clocks[] = {NAME(CLOCK_REALTIME),
                               NAME(CLOCK_MONOTONIC),
                               NAME(CLOCK_PROCESS_CPUTIME_ID),
                               NAME(CLOCK_THREAD_CPUTIME_ID),
                               NAME(CLOCK_MONOTONIC_RAW),
                               NAME(CLOCK_REALTIME_COARSE),
                               NAME(CLOCK_MONOTONIC_COARSE),
                               NAME(CLOCK_BOOTTIME),
                               NAME(CLOCK_REALTIME_ALARM),
                               NAME(CLOCK_BOOTTIME_ALARM),
                               NAME(CLOCK_TAI)};
constexpr FlagName timer_bits[] = {NAME(TIMER_ABSTIME)};
constexpr FlagName itimers[] = {NAME(ITIMER_REAL), NAME(ITIMER_VIRTUAL), NAME(ITIMER_PROF)};
constexpr FlagName resources[] = {
    NAME(RLIMIT_CPU),      NAME(RLIMIT_FSIZE), NAME(RLIMIT_DATA),   NAME(RLIMIT_STACK),
    NAME(RLIMIT_CORE),     NAME(RLIMIT_RSS),   NAME(RLIMIT_NPROC),  NAME(RLIMIT_NOFILE),
    NAME(RLIMIT_MEMLOCK),  NAME(RLIMIT_AS),    NAME(RLIMIT_LOCKS),  NAME(RLIMIT_SIGPENDING),
    NAME(RLIMIT_MSGQUEUE), NAME(RLIMIT_NICE),  NAME(RLIMIT_RTPRIO), NAME(RLIMIT_RTTIME)};
constexpr FlagName priorities[] = {NAME(PRIO_PROCESS), NAME(PRIO_PGRP), NAME(PRIO_USER)};
constexpr FlagName usages[] = {NAME(RUSAGE_SELF), NAME(RUSAGE_CHILDREN), NAME(RUSAGE_THREAD)};
constexpr FlagName policies[] = {NAME(SCHED_OTHER), NAME(SCHED_FIFO), NAME(SCHED_RR),
                                 NAME(SCHED_BATCH), NAME(SCHED_IDLE), {"SCHED_DEADLINE", 6}};
constexpr FlagName policy_bits[] = {NAME(SCHED_RESET_ON_FORK)};
constexpr FlagName reboots[] = {NAME(RB_AUTOBOOT),    NAME(RB_HALT_SYSTEM), NAME(RB_ENABLE_CAD),
                                NAME(RB_DISABLE_CAD), NAME(RB_POWER_OFF),   NAME(RB_SW_SUSPEND),
                                NAME(RB_KEXEC)};

constexpr FlagTable process_tables[] = {
    {FlagKind::family, only_values, families, {}},
    {FlagKind::socket_type, 0xf, socket_types, socket_bits},  // SOCK_TYPE_MASK
    {FlagKind::socket_flags, 0, {}, socket_bits},
    {FlagKind::ip_protocol, only_values, ip_protocols, {}},
    {FlagKind::netlink_protocol, only_values, netlink_protocols, {}},
    {FlagKind::message_flags, 0, {}, message_bits},
    {FlagKind::shutdown_how, only_values, shutdowns, {}},
    {FlagKind::socket_level, only_values, levels, {}},
    {FlagKind::socket_option, only_values, socket_options, {}},
    {FlagKind::tcp_option, only_values, tcp_options, {}},
    {FlagKind::signal, only_values, signals, {}},
    {FlagKind::signal_mask_how, only_values, mask_hows, {}},
    {FlagKind::clone_flags, CSIGNAL, signals, clone_bits},
    {FlagKind::wait_options, 0, {}, wait_bits},
    {FlagKind::id_type, only_values, id_types, {}},
    {FlagKind::futex_operation, 0xff, futexes, futex_bits},  // with FUTEX_PRIVATE_FLAG
    {FlagKind::prctl_option, only_values, prctls, {}},
    {FlagKind::arch_prctl_option, only_values, arch_prctls, {}},
    {FlagKind::random_flags, 0, {}, random_bits},
    {FlagKind::seccomp_operation, only_values, seccomps, {}},
    {FlagKind::bpf_command, only_values, bpfs, {}},
    {FlagKind::ptrace_request, only_values, ptraces, {}},
    {FlagKind::membarrier, only_values, membarriers, {}},
    {FlagKind::clock, only_values, clocks, {}},
    {FlagKind::timer_flags, 0, {}, timer_bits},
    {FlagKind::interval_timer, only_values, itimers, {}},
    {FlagKind::resource, only_values, resources, {}},
    {FlagKind::priority_of, only_values, priorities, {}},
    {FlagKind::usage_of, only_values, usages, {}},
    {FlagKind::policy, 0xff, policies, policy_bits},
    {FlagKind::reboot_command, only_values, reboots, {}},
};

}  // namespace

std::span<const FlagTable> process_flags() { return process_tables; }

}  // namespace vmsight
