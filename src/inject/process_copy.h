// A copy of the QEMU process, made by fork: guest RAM as it was at that moment, for reading.
//
// A thread of QEMU is borrowed for madvise(MADV_DOFORK) of guest RAM (QEMU keeps it out of
// children), clone(), and madvise(MADV_DONTFORK). The copy never runs: it stands, traced by us,
// until it is killed, and is killed by the kernel if we end. It shares QEMU's descriptors instead
// of having its own, so that what QEMU closes is closed. Then QEMU is borrowed once more for
// wait4(), since the copy is its child: nothing is left of it, and QEMU gets no SIGCHLD.
#pragma once

#include <sys/types.h>

#include <optional>
#include <span>
#include <vector>

#include "inject/x86_64/remote_syscall.h"
#include "vmsight/vm.h"

namespace vmsight {

class ProcessCopy {
 public:
  /// `blocks` are those that shall be in the copy. If it fails QEMU is as before; an error of code
  /// timeout demands the end of the calling process. The guest's vCPUs must stand, or different
  /// pages of the copy are of different moments.
  static Result<ProcessCopy> make(pid_t pid, std::span<const RamBlock> blocks, Tracing& tracing);
  ProcessCopy(ProcessCopy&& other) noexcept;
  ProcessCopy& operator=(ProcessCopy&& other) noexcept;
  /// As remove().
  ~ProcessCopy();

  pid_t pid() const { return copy_.pid; }
  Result<void> remove();

 private:
  ProcessCopy(pid_t vm, BorrowedThread::Copy copy, Tracing& tracing)
      : vm_(vm), copy_(copy), tracing_(&tracing) {}
  Result<void> hold();

  pid_t vm_ = 0;
  BorrowedThread::Copy copy_;  // pid 0: there is none
  Tracing* tracing_ = nullptr;
};

/// Takes the remains of a dead copy out of QEMU's children. not_found if there are none.
Result<void> reap_copy(pid_t vm, pid_t pid_in_vm, Tracing& tracing);

/// MADV_DONTFORK for all of the blocks, as QEMU has it; those that are not there are passed over.
Result<void> keep_out_of_children(pid_t vm, std::span<const RamBlock> blocks, Tracing& tracing);

}  // namespace vmsight
