// QEMU processes as /proc shows them.
#pragma once

#include <sys/types.h>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

/// A process, told from a later one with the same PID by its start time.
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // clock ticks after the host's boot, /proc/PID/stat field 22
  friend bool operator==(const ProcessId&, const ProcessId&) = default;
};

/// A whole file of /proc, at most `limit` bytes. vm_gone if the process has ended, permission if
/// the rights are missing.
Result<std::string> read_proc_file(pid_t pid, std::string_view name, std::size_t limit = 16u << 20);

/// A link of /proc/PID, such as "exe" or "cwd".
Result<std::string> read_proc_link(pid_t pid, std::string_view name);

/// The value of one line of a /proc/PID/status text ("TracerPid", "VmRSS"), without the blanks
/// before it; nullopt if there is no such line.
std::optional<std::string_view> parse_status_field(std::string_view status, std::string_view name);

/// All threads of the process, ascending. vm_gone if it has ended.
Result<std::vector<pid_t>> list_threads(pid_t pid);

/// The process that traces this thread, 0 if none does or the thread has ended.
pid_t tracer_of(pid_t pid, pid_t tid);

/// Whether one of the process's descriptors is a link that `wanted` accepts ("anon_inode:kvm-vm");
/// nullopt if they cannot be listed.
std::optional<bool> has_descriptor(pid_t pid,
                                   const std::function<bool(std::string_view link)>& wanted);

/// Field 22 of a /proc/PID/stat line; the command name in it may hold any character.
Result<std::uint64_t> parse_start_time(std::string_view stat);
Result<ProcessId> identify(pid_t pid);

/// Whether the process is stopped: by a signal (SIGSTOP; state T), or by a tracer that does not let it
/// go on (state t). Takes `tracer_time` to say yes to the latter: one as strace stops it at every system
/// call, and lets it go on.
constexpr std::chrono::milliseconds tracer_time{500};
bool is_stopped(pid_t pid);

/// The user who started the process, its real uid. (The owner of its /proc entry is root as soon as
/// it makes itself undumpable, which everybody may.)
Result<uid_t> process_owner(pid_t pid);

/// Splits /proc/PID/cmdline at its NULs.
std::vector<std::string> split_arguments(std::string_view cmdline);

/// Whether this executable (or, run through the dynamic loader, one of the first arguments) is by its
/// name a QEMU system emulator for x86-64: qemu-system-x86_64*, qemu-kvm, kvm; deleted ones too, and
/// those that a distribution wraps (".qemu-system-x86_64-wrapped").
bool is_qemu(std::string_view executable, const std::vector<std::string>& arguments);
/// Whether it is the dynamic loader, so that only the arguments can tell.
bool is_dynamic_loader(std::string_view executable);

struct QemuProcesses {
  std::vector<pid_t> readable;
  std::vector<pid_t> unreadable;  // QEMU by its command line, but of another user
};
/// Whether these arguments are a system emulator's: an option that only one has, or two of those that
/// others may have as well.
bool has_emulator_arguments(const std::vector<std::string>& arguments);
/// Every QEMU process of this PID namespace, ascending: by its name, or, under another name, by what it
/// is, an emulator's arguments and a virtual machine of KVM or memory as QEMU marks its guest's
/// (MADV_DONTFORK). Looks at each process once; all but few are told by their name and arguments.
Result<QemuProcesses> find_qemu_processes();

/// A pidfd of exactly this process: vm_gone if the PID now belongs to another one.
Result<UniqueFd> open_pidfd(const ProcessId& id);
/// Whether it has ended (also if nobody has reaped it yet), or does so in time.
bool has_ended(const ProcessId& id, int patience_ms = 0);
/// Whether this thread has ended. A process whose main thread has is ending or has ended; but nobody
/// is told so, by pidfd or wait, before a tracer has reaped the threads that it traces.
bool thread_has_ended(pid_t tid);
/// vm_gone if the process behind the pidfd has ended.
Result<void> check_pidfd(int pidfd, pid_t pid);

}  // namespace vmsight
