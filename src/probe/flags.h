// Names of numbers, as the guest's programs and kernel write them: "O_RDONLY|O_CLOEXEC", "SIGTERM",
// "AT_FDCWD". Pure. The numbers are the x86-64 ABI's, from the headers that this was built with, and
// so are the same in every guest; of the kernel's own only those that never changed are here.
//
//   which argument   flag_rules(), by a table   (system call, position) -> FlagKind
//   which names      flag_names(), by tables    FlagKind, number -> text
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace vmsight {

enum class FlagKind : std::uint8_t {
  none,
  unused,  // not an argument at all, as other arguments are: the mode of open() without O_CREAT
  hexadecimal,
  octal,  // no names, but not decimal either
  open_flags,
  pipe_flags,
  directory,
  at_flags,
  unlink_flags,
  access_flags,
  access_mode,
  rename_flags,
  statx_mask,
  resolve,
  whence,
  fcntl_command,
  fd_flags,
  file_lock,
  fallocate_mode,
  file_advice,
  splice_flags,
  mount_flags,
  umount_flags,
  inotify_mask,
  sync_range,
  rw_flags,
  close_range,
  ioctl_request,
  epoll_operation,
  eventfd_flags,
  protection,
  map_flags,
  remap_flags,
  sync_flags,
  memory_advice,
  lock_all,
  lock_flags,
  memfd_flags,
  family,
  socket_type,
  socket_flags,
  ip_protocol,
  netlink_protocol,
  message_flags,
  shutdown_how,
  socket_level,
  socket_option,
  tcp_option,
  signal,
  signal_mask_how,
  clone_flags,
  wait_options,
  id_type,
  futex_operation,
  prctl_option,
  arch_prctl_option,
  random_flags,
  seccomp_operation,
  bpf_command,
  ptrace_request,
  membarrier,
  clock,
  timer_flags,
  interval_timer,
  resource,
  priority_of,
  usage_of,
  policy,
  reboot_command,
  file_mode,
  may,
  capability,  // the kernel's own
};

/// "O_WRONLY|O_CREAT|0x40000000", "SIGTERM", "0644": text for the whole number, with bits that have no
/// name in hexadecimal. "" for a number that is best shown as its type says: a constant without a
/// name, or a kind without names. Of a number of flags only the low `bits` count.
std::string flag_names(FlagKind kind, std::uint64_t value, unsigned bits = 64);

/// What an argument is, maybe depending on another one.
struct FlagRule {
  std::string_view call;
  std::uint8_t argument = 0;
  FlagKind kind = FlagKind::none;
  std::uint8_t other = 0;                        // which other argument decides,
  bool (*holds)(std::uint64_t other) = nullptr;  // and how; nullptr: always so
};
/// The rules of one system call ("openat"); the first that holds for an argument counts.
std::span<const FlagRule> flag_rules(std::string_view system_call);

/// Of functions of the kernel: by the names and types of their arguments, where these are sure.
FlagKind function_flags(std::string_view function, std::string_view argument,
                        std::string_view type);
/// Of members of the kernel's structures: ("open_how", "flags").
FlagKind member_flags(std::string_view structure, std::string_view member);

}  // namespace vmsight
