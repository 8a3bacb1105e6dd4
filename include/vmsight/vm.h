// The host side of a VM: finding QEMU processes, what they are, where their RAM is.
// Knows nothing of kernels. Looking changes nothing in QEMU or the guest.
#pragma once

#include <sys/types.h>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/memory.h"
#include "vmsight/result.h"

namespace VMSIGHT_PUBLIC vmsight {

enum class Accelerator { unknown, tcg, kvm };
std::string_view to_string(Accelerator accelerator);

/// A running QEMU process, as its /proc entry tells; nothing was asked of QEMU itself.
struct VmInfo {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // clock ticks after the host's boot: with pid, an identity
  uid_t uid = 0;
  std::string name;  // -name guest=..., else the libvirt domain, else "qemu-<pid>"
  std::string uuid;
  std::string executable;  // "/usr/bin/qemu-system-x86_64"
  Accelerator accelerator = Accelerator::unknown;
  std::string machine;  // "pc", "q35", "microvm", "pc-i440fx-7.2" as given
  unsigned vcpus = 1;
  std::uint64_t memory_bytes = 0;        // -m: without what was plugged in; that is in Vm::ram()
  std::vector<std::string> qmp_sockets;  // paths of unix QMP sockets on the command line
  bool libvirt = false;
  std::vector<std::string> arguments;
  /// Set by find_vm(): other processes that claim the name asked for, and that were passed over since
  /// anybody may claim any name ("process 12 of user 1000"); "" if there is none.
  std::string passed_over;
};

/// How a RAM block of QEMU is backed on the host.
enum class Backing {
  anonymous,     // private anonymous memory: reads only
  shared_file,   // memfd, /dev/shm or file mapped MAP_SHARED: can be mapped by us
  private_file,  // a file mapped MAP_PRIVATE: the file does not show the guest's writes
};
std::string_view to_string(Backing backing);

struct RamBlock {
  std::string name;  // QEMU's name if known ("pc.ram", "ram0"), else a description
  std::uint64_t size = 0;
  HostVirt host;  // start of the mapping in the QEMU process
  Backing backing = Backing::anonymous;
  std::string path;                     // name in /proc/PID/maps
  std::uint64_t device = 0, inode = 0;  // st_dev and st_ino of the backing file, 0 if anonymous
  std::uint64_t file_offset = 0;        // where the block begins in that file
};

/// A vCPU's system registers, where the monitor could tell them.
struct VcpuRegisters {
  unsigned index = 0;
  std::uint64_t rip = 0, cr3 = 0, cr4 = 0, gs_base = 0;
  unsigned cpl = 0;
  bool halted = false;
  /// rax rbx rcx rdx rsi rdi rsp rbp r8 ... r15, and rflags; only if `has_general`.
  std::array<std::uint64_t, 16> general{};
  std::uint64_t rflags = 0;
  bool has_general = false;
};

/// An attached VM. Holds a pidfd: if the PID is used again, that is noticed.
class Vm {
 public:
  virtual ~Vm() = default;
  virtual const VmInfo& info() const = 0;
  virtual const std::vector<RamBlock>& blocks() const = 0;
  virtual const RamMap& ram() const = 0;
  /// Where the RAM map is from: "monitor" (info mtree) or "derived" (command line and maps).
  virtual std::string_view ram_source() const = 0;
  /// What is doubtful about the RAM map, or "": how the one derived from the command line differs
  /// from the one the monitor told (which is used), or what deriving had to guess.
  virtual std::string ram_note() const = 0;
  /// Why the monitor was not used, or "" if it was.
  virtual std::string monitor_note() const = 0;
  /// vm_gone if the process has ended (or is a zombie).
  virtual Result<void> check_alive() const = 0;
  /// Registers of all vCPUs, by QMP (`info registers -a`); unsupported, with the reason, if
  /// no monitor can be used. Does not stop the guest.
  virtual Result<std::vector<VcpuRegisters>> registers() = 0;
  /// "running", "paused", ... by QMP query-status; unsupported as above.
  virtual Result<std::string> run_state() = 0;
};

/// All VMs on this host that we may look at, by PID. `unreadable` counts QEMU processes whose
/// /proc entry we lack the rights to read.
struct VmList {
  std::vector<VmInfo> vms;
  unsigned unreadable = 0;
};
Result<VmList> list_vms();

/// Finds one VM by name, PID, QMP socket path, libvirt domain name or UUID. A PID is exactly that
/// process. Any user may start a QEMU under any name: of several that claim one, those of other users
/// do not count beside ours, root's, and the domains of the system's libvirt.
/// not_found (with what exists as hint), ambiguous (names the PIDs), permission.
Result<VmInfo> find_vm(std::string_view spec);

Result<std::unique_ptr<Vm>> open_vm(const VmInfo& info);

/// What a vmsight that was killed had left in a VM, and what became of it: see attach().
struct Recovery {
  pid_t pid = 0;   // of the VM
  std::string vm;  // its name
  std::string kind;
  std::string what;  // "the guest was stopped by QMP"
  bool undone = false;
  std::string reason;  // why not
  std::string hint;    // what to do then, or ""
};

}  // namespace vmsight
