// Files and memory.
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "probe/flag_tables.h"

namespace vmsight {
namespace {

#define NAME(constant) flag_name(#constant, constant)

// glibc calls it 0 for x86-64, but kernels set it by themselves: include/uapi/asm-generic/fcntl.h.
constexpr std::uint64_t kernel_o_largefile = 0100000;

constexpr FlagName open_values[] = {NAME(O_RDONLY), NAME(O_WRONLY), NAME(O_RDWR), NAME(O_ACCMODE)};
constexpr FlagName open_bits[] = {
    NAME(O_TMPFILE),   NAME(O_SYNC),     NAME(O_CREAT),   NAME(O_EXCL),
    NAME(O_NOCTTY),    NAME(O_TRUNC),    NAME(O_APPEND),  NAME(O_NONBLOCK),
    NAME(O_DSYNC),     NAME(O_ASYNC),    NAME(O_DIRECT),  {"O_LARGEFILE", kernel_o_largefile},
    NAME(O_DIRECTORY), NAME(O_NOFOLLOW), NAME(O_NOATIME), NAME(O_CLOEXEC),
    NAME(O_PATH)};
constexpr FlagName pipe_bits[] = {NAME(O_CLOEXEC), NAME(O_NONBLOCK), NAME(O_DIRECT)};
constexpr FlagName directories[] = {NAME(AT_FDCWD)};
constexpr FlagName at_bits[] = {
    NAME(AT_SYMLINK_NOFOLLOW), NAME(AT_SYMLINK_FOLLOW),  NAME(AT_NO_AUTOMOUNT), NAME(AT_EMPTY_PATH),
    NAME(AT_STATX_FORCE_SYNC), NAME(AT_STATX_DONT_SYNC), NAME(AT_RECURSIVE)};
constexpr FlagName unlink_bits[] = {NAME(AT_REMOVEDIR)};
constexpr FlagName access_bits[] = {NAME(AT_EACCESS), NAME(AT_SYMLINK_NOFOLLOW),
                                    NAME(AT_EMPTY_PATH)};
constexpr FlagName access_modes[] = {NAME(R_OK), NAME(W_OK), NAME(X_OK)};
constexpr FlagName rename_bits[] = {NAME(RENAME_NOREPLACE), NAME(RENAME_EXCHANGE),
                                    NAME(RENAME_WHITEOUT)};
constexpr FlagName statx_bits[] = {NAME(STATX_BASIC_STATS), NAME(STATX_TYPE),  NAME(STATX_MODE),
                                   NAME(STATX_NLINK),       NAME(STATX_UID),   NAME(STATX_GID),
                                   NAME(STATX_ATIME),       NAME(STATX_MTIME), NAME(STATX_CTIME),
                                   NAME(STATX_INO),         NAME(STATX_SIZE),  NAME(STATX_BLOCKS),
                                   NAME(STATX_BTIME),       NAME(STATX_MNT_ID)};
constexpr FlagName resolve_bits[] = {NAME(RESOLVE_NO_XDEV),     NAME(RESOLVE_NO_MAGICLINKS),
                                     NAME(RESOLVE_NO_SYMLINKS), NAME(RESOLVE_BENEATH),
                                     NAME(RESOLVE_IN_ROOT),     NAME(RESOLVE_CACHED)};
constexpr FlagName whences[] = {NAME(SEEK_SET), NAME(SEEK_CUR), NAME(SEEK_END), NAME(SEEK_DATA),
                                NAME(SEEK_HOLE)};
constexpr FlagName fcntl_commands[] = {
    NAME(F_DUPFD),         NAME(F_GETFD),       NAME(F_SETFD),      NAME(F_GETFL),
    NAME(F_SETFL),         NAME(F_GETLK),       NAME(F_SETLK),      NAME(F_SETLKW),
    NAME(F_SETOWN),        NAME(F_GETOWN),      NAME(F_SETSIG),     NAME(F_GETSIG),
    NAME(F_SETOWN_EX),     NAME(F_GETOWN_EX),   NAME(F_OFD_GETLK),  NAME(F_OFD_SETLK),
    NAME(F_OFD_SETLKW),    NAME(F_SETLEASE),    NAME(F_GETLEASE),   NAME(F_NOTIFY),
    NAME(F_DUPFD_CLOEXEC), NAME(F_SETPIPE_SZ),  NAME(F_GETPIPE_SZ), NAME(F_ADD_SEALS),
    NAME(F_GET_SEALS),     NAME(F_GET_RW_HINT), NAME(F_SET_RW_HINT)};
constexpr FlagName fd_bits[] = {NAME(FD_CLOEXEC)};
constexpr FlagName lock_bits[] = {NAME(LOCK_SH), NAME(LOCK_EX), NAME(LOCK_UN), NAME(LOCK_NB)};
constexpr FlagName fallocate_bits[] = {
    NAME(FALLOC_FL_KEEP_SIZE),  NAME(FALLOC_FL_PUNCH_HOLE),   NAME(FALLOC_FL_COLLAPSE_RANGE),
    NAME(FALLOC_FL_ZERO_RANGE), NAME(FALLOC_FL_INSERT_RANGE), NAME(FALLOC_FL_UNSHARE_RANGE)};
constexpr FlagName file_advices[] = {NAME(POSIX_FADV_NORMAL),     NAME(POSIX_FADV_RANDOM),
                                     NAME(POSIX_FADV_SEQUENTIAL), NAME(POSIX_FADV_WILLNEED),
                                     NAME(POSIX_FADV_DONTNEED),   NAME(POSIX_FADV_NOREUSE)};
constexpr FlagName splice_bits[] = {NAME(SPLICE_F_MOVE), NAME(SPLICE_F_NONBLOCK),
                                    NAME(SPLICE_F_MORE), NAME(SPLICE_F_GIFT)};
constexpr FlagName mount_bits[] = {
    NAME(MS_RDONLY),      NAME(MS_NOSUID),      NAME(MS_NODEV),      NAME(MS_NOEXEC),
    NAME(MS_SYNCHRONOUS), NAME(MS_REMOUNT),     NAME(MS_MANDLOCK),   NAME(MS_DIRSYNC),
    NAME(MS_NOSYMFOLLOW), NAME(MS_NOATIME),     NAME(MS_NODIRATIME), NAME(MS_BIND),
    NAME(MS_MOVE),        NAME(MS_REC),         NAME(MS_SILENT),     NAME(MS_POSIXACL),
    NAME(MS_UNBINDABLE),  NAME(MS_PRIVATE),     NAME(MS_SLAVE),      NAME(MS_SHARED),
    NAME(MS_RELATIME),    NAME(MS_STRICTATIME), NAME(MS_LAZYTIME)};
constexpr FlagName umount_bits[] = {NAME(MNT_FORCE), NAME(MNT_DETACH), NAME(MNT_EXPIRE),
                                    NAME(UMOUNT_NOFOLLOW)};
constexpr FlagName inotify_bits[] = {
    NAME(IN_ALL_EVENTS),  NAME(IN_CLOSE),       NAME(IN_MOVE),        NAME(IN_ACCESS),
    NAME(IN_MODIFY),      NAME(IN_ATTRIB),      NAME(IN_CLOSE_WRITE), NAME(IN_CLOSE_NOWRITE),
    NAME(IN_OPEN),        NAME(IN_MOVED_FROM),  NAME(IN_MOVED_TO),    NAME(IN_CREATE),
    NAME(IN_DELETE),      NAME(IN_DELETE_SELF), NAME(IN_MOVE_SELF),   NAME(IN_ONLYDIR),
    NAME(IN_DONT_FOLLOW), NAME(IN_EXCL_UNLINK), NAME(IN_MASK_ADD),    NAME(IN_ONESHOT)};
constexpr FlagName range_bits[] = {NAME(SYNC_FILE_RANGE_WAIT_BEFORE), NAME(SYNC_FILE_RANGE_WRITE),
                                   NAME(SYNC_FILE_RANGE_WAIT_AFTER)};
constexpr FlagName rw_bits[] = {NAME(RWF_HIPRI), NAME(RWF_DSYNC), NAME(RWF_SYNC), NAME(RWF_NOWAIT),
                                NAME(RWF_APPEND)};
constexpr FlagName close_range_bits[] = {NAME(CLOSE_RANGE_UNSHARE), NAME(CLOSE_RANGE_CLOEXEC)};
constexpr FlagName requests[] = {
    NAME(TCGETS),     NAME(TCSETS),     NAME(TCSETSW),    NAME(TCSETSF),   NAME(TCSBRK),
    NAME(TCFLSH),     NAME(TIOCSCTTY),  NAME(TIOCGPGRP),  NAME(TIOCSPGRP), NAME(TIOCOUTQ),
    NAME(TIOCGWINSZ), NAME(TIOCSWINSZ), NAME(FIONREAD),   NAME(TIOCNOTTY), NAME(FIONBIO),
    NAME(TIOCGSID),   NAME(TIOCGPTN),   NAME(TIOCSPTLCK), NAME(FIONCLEX),  NAME(FIOCLEX),
    NAME(FIOASYNC),   NAME(FIOQSIZE)};
constexpr FlagName epoll_operations[] = {NAME(EPOLL_CTL_ADD), NAME(EPOLL_CTL_DEL),
                                         NAME(EPOLL_CTL_MOD)};
// EFD_SEMAPHORE is 1; <sys/eventfd.h> has the others equal to O_CLOEXEC and O_NONBLOCK.
constexpr FlagName eventfd_bits[] = {
    {"EFD_SEMAPHORE", 1}, {"EFD_CLOEXEC", O_CLOEXEC}, {"EFD_NONBLOCK", O_NONBLOCK}};

constexpr FlagName protections[] = {NAME(PROT_READ), NAME(PROT_WRITE), NAME(PROT_EXEC),
                                    NAME(PROT_GROWSDOWN), NAME(PROT_GROWSUP)};
constexpr FlagName map_values[] = {NAME(MAP_SHARED), NAME(MAP_PRIVATE), NAME(MAP_SHARED_VALIDATE)};
constexpr FlagName map_bits[] = {
    NAME(MAP_FIXED),     NAME(MAP_ANONYMOUS),      NAME(MAP_32BIT),  NAME(MAP_GROWSDOWN),
    NAME(MAP_DENYWRITE), NAME(MAP_EXECUTABLE),     NAME(MAP_LOCKED), NAME(MAP_NORESERVE),
    NAME(MAP_POPULATE),  NAME(MAP_NONBLOCK),       NAME(MAP_STACK),  NAME(MAP_HUGETLB),
    NAME(MAP_SYNC),      NAME(MAP_FIXED_NOREPLACE)};
constexpr FlagName remap_bits[] = {NAME(MREMAP_MAYMOVE), NAME(MREMAP_FIXED),
                                   NAME(MREMAP_DONTUNMAP)};
constexpr FlagName sync_bits[] = {NAME(MS_ASYNC), NAME(MS_INVALIDATE), NAME(MS_SYNC)};
constexpr FlagName memory_advices[] = {
    NAME(MADV_NORMAL),     NAME(MADV_RANDOM),        NAME(MADV_SEQUENTIAL),
    NAME(MADV_WILLNEED),   NAME(MADV_DONTNEED),      NAME(MADV_FREE),
    NAME(MADV_REMOVE),     NAME(MADV_DONTFORK),      NAME(MADV_DOFORK),
    NAME(MADV_MERGEABLE),  NAME(MADV_UNMERGEABLE),   NAME(MADV_HUGEPAGE),
    NAME(MADV_NOHUGEPAGE), NAME(MADV_DONTDUMP),      NAME(MADV_DODUMP),
    NAME(MADV_WIPEONFORK), NAME(MADV_KEEPONFORK),    NAME(MADV_COLD),
    NAME(MADV_PAGEOUT),    NAME(MADV_POPULATE_READ), NAME(MADV_POPULATE_WRITE),
    NAME(MADV_HWPOISON)};
constexpr FlagName lock_all_bits[] = {NAME(MCL_CURRENT), NAME(MCL_FUTURE), NAME(MCL_ONFAULT)};
constexpr FlagName mlock_bits[] = {NAME(MLOCK_ONFAULT)};
constexpr FlagName memfd_bits[] = {NAME(MFD_CLOEXEC), NAME(MFD_ALLOW_SEALING), NAME(MFD_HUGETLB)};

// The kernel's own, since before 5.10: include/linux/fs.h.
constexpr FlagName file_modes[] = {{"FMODE_READ", 1},      {"FMODE_WRITE", 2},
                                   {"FMODE_LSEEK", 4},     {"FMODE_PREAD", 8},
                                   {"FMODE_PWRITE", 0x10}, {"FMODE_EXEC", 0x20}};
constexpr FlagName may_bits[] = {{"MAY_EXEC", 1},     {"MAY_WRITE", 2},       {"MAY_READ", 4},
                                 {"MAY_APPEND", 8},   {"MAY_ACCESS", 0x10},   {"MAY_OPEN", 0x20},
                                 {"MAY_CHDIR", 0x40}, {"MAY_NOT_BLOCK", 0x80}};
constexpr FlagName capabilities[] = {NAME(CAP_CHOWN),
                                     NAME(CAP_DAC_OVERRIDE),
                                     NAME(CAP_DAC_READ_SEARCH),
                                     NAME(CAP_FOWNER),
                                     NAME(CAP_FSETID),
                                     NAME(CAP_KILL),
                                     NAME(CAP_SETGID),
                                     NAME(CAP_SETUID),
                                     NAME(CAP_SETPCAP),
                                     NAME(CAP_LINUX_IMMUTABLE),
                                     NAME(CAP_NET_BIND_SERVICE),
                                     NAME(CAP_NET_BROADCAST),
                                     NAME(CAP_NET_ADMIN),
                                     NAME(CAP_NET_RAW),
                                     NAME(CAP_IPC_LOCK),
                                     NAME(CAP_IPC_OWNER),
                                     NAME(CAP_SYS_MODULE),
                                     NAME(CAP_SYS_RAWIO),
                                     NAME(CAP_SYS_CHROOT),
                                     NAME(CAP_SYS_PTRACE),
                                     NAME(CAP_SYS_PACCT),
                                     NAME(CAP_SYS_ADMIN),
                                     NAME(CAP_SYS_BOOT),
                                     NAME(CAP_SYS_NICE),
                                     NAME(CAP_SYS_RESOURCE),
                                     NAME(CAP_SYS_TIME),
                                     NAME(CAP_SYS_TTY_CONFIG),
                                     NAME(CAP_MKNOD),
                                     NAME(CAP_LEASE),
                                     NAME(CAP_AUDIT_WRITE),
                                     NAME(CAP_AUDIT_CONTROL),
                                     NAME(CAP_SETFCAP),
                                     NAME(CAP_MAC_OVERRIDE),
                                     NAME(CAP_MAC_ADMIN),
                                     NAME(CAP_SYSLOG),
                                     NAME(CAP_WAKE_ALARM),
                                     NAME(CAP_BLOCK_SUSPEND),
                                     NAME(CAP_AUDIT_READ),
                                     NAME(CAP_PERFMON),
                                     NAME(CAP_BPF),
                                     NAME(CAP_CHECKPOINT_RESTORE)};

constexpr FlagTable file_tables[] = {
    {FlagKind::open_flags, O_ACCMODE, open_values, open_bits},
    {FlagKind::pipe_flags, 0, {}, pipe_bits},
    {FlagKind::directory, only_values, directories, {}},
    {FlagKind::at_flags, 0, {}, at_bits},
    {FlagKind::unlink_flags, 0, {}, unlink_bits},
    {FlagKind::access_flags, 0, {}, access_bits},
    {FlagKind::access_mode, 0, {}, access_modes, "F_OK"},
    {FlagKind::rename_flags, 0, {}, rename_bits},
    {FlagKind::statx_mask, 0, {}, statx_bits},
    {FlagKind::resolve, 0, {}, resolve_bits},
    {FlagKind::whence, only_values, whences, {}},
    {FlagKind::fcntl_command, only_values, fcntl_commands, {}},
    {FlagKind::fd_flags, 0, {}, fd_bits},
    {FlagKind::file_lock, 0, {}, lock_bits},
    {FlagKind::fallocate_mode, 0, {}, fallocate_bits},
    {FlagKind::file_advice, only_values, file_advices, {}},
    {FlagKind::splice_flags, 0, {}, splice_bits},
    {FlagKind::mount_flags, 0, {}, mount_bits},
    {FlagKind::umount_flags, 0, {}, umount_bits},
    {FlagKind::inotify_mask, 0, {}, inotify_bits},
    {FlagKind::sync_range, 0, {}, range_bits},
    {FlagKind::rw_flags, 0, {}, rw_bits},
    {FlagKind::close_range, 0, {}, close_range_bits},
    {FlagKind::ioctl_request, only_values, requests, {}},
    {FlagKind::epoll_operation, only_values, epoll_operations, {}},
    {FlagKind::eventfd_flags, 0, {}, eventfd_bits},
    {FlagKind::protection, 0, {}, protections, "PROT_NONE"},
    {FlagKind::map_flags, 0xf, map_values, map_bits},  // MAP_TYPE
    {FlagKind::remap_flags, 0, {}, remap_bits},
    {FlagKind::sync_flags, 0, {}, sync_bits},
    {FlagKind::memory_advice, only_values, memory_advices, {}},
    {FlagKind::lock_all, 0, {}, lock_all_bits},
    {FlagKind::lock_flags, 0, {}, mlock_bits},
    {FlagKind::memfd_flags, 0, {}, memfd_bits},
    {FlagKind::file_mode, 0, {}, file_modes},
    {FlagKind::may, 0, {}, may_bits},
    {FlagKind::capability, only_values, capabilities, {}},
};

}  // namespace

std::span<const FlagTable> file_flags() { return file_tables; }

}  // namespace vmsight
