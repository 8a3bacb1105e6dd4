// Catching the first write to each page of guest RAM: a userfaultfd of the QEMU process, in our
// hands.
//
// A thread of QEMU is borrowed for userfaultfd(), pidfd_getfd() fetches the descriptor, and QEMU's
// own copy is closed before anything is registered: when our process ends, the kernel takes every
// protection back and wakes every thread that waits.
//
// The userfaultfd must also catch writes that the kernel does for QEMU (a disk read into guest RAM,
// KVM's own accesses): with UFFD_USER_MODE_ONLY those would fail, and the guest would see I/O
// errors. So it is never used. A QEMU without CAP_SYS_PTRACE may not call userfaultfd() otherwise;
// it is then given our descriptor of /dev/userfaultfd, through a socket pair of its own, to make
// one with.
//
// Not caught: writes by devices themselves (VFIO, or direct disk I/O that was under way when the
// protection was set), and guest RAM that QEMU discards (a balloon).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <vector>

#include "base/os.h"
#include "inject/x86_64/remote_syscall.h"
#include "vmsight/vm.h"

namespace vmsight {

/// What the host's userfaultfd can do, asked of one of our own.
struct WriteProtectSupport {
  bool unpopulated = false;  // pages that are not there are protected too (6.4)
};
/// unsupported, with the reason, if this RAM cannot be write-protected on this host, or not now
/// because another userfaultfd has it. Changes nothing.
Result<WriteProtectSupport> check_write_protect(const Vm& vm);

class WriteProtect {
 public:
  struct Run {
    HostVirt start;
    std::uint64_t size = 0;
  };

  /// Injects, and registers the runs; none is protected yet. An error leaves QEMU as it was; one of
  /// code timeout demands the end of this process.
  static Result<WriteProtect> open(pid_t pid, std::span<const Run> runs, bool unpopulated,
                                   Tracing& tracing);

  /// Readable when a thread waits.
  int fd() const { return fd_.get(); }
  /// Every later write to a page is held until allow() of that page.
  Result<void> protect();
  /// All pages can be written again, and all threads that wait go on.
  Result<void> allow_all();
  /// This page can be written again.
  Result<void> allow(HostVirt page);
  /// Pages that threads wait to write, at most as many as fit. 0 if there are none now.
  Result<std::size_t> waiting(std::span<HostVirt> pages);

 private:
  WriteProtect() = default;
  Result<void> set(HostVirt start, std::uint64_t size, std::uint64_t mode);

  UniqueFd fd_;
  std::vector<Run> runs_;
};

}  // namespace vmsight
