// How a borrowed thread (inject/x86_64/remote_syscall.h) gets back to what it did, should its tracer be killed
// while it makes a system call for us: by itself, as from a signal handler.
//
//      rsp -> | address of `mov $15, %eax; syscall`  |   the C library's return from handlers
//             | ucontext: its registers, signal mask |
//             | its x87, SSE, AVX ... state          |
//
// The borrowed call is made at a `syscall; ret`. Once the thread runs untraced behind the call, the
// `ret` takes the first word, and the kernel puts everything back from the rest. Where the thread
// had been interrupted in a system call of its own, that is begun again.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "vmsight/address.h"

namespace vmsight {

struct WayBack {
  HostVirt call;     // a `syscall; ret`
  HostVirt restore;  // what the `ret` goes to
  HostVirt frame;    // where rsp must point

  /// Writes the frame below the thread's stack, where nothing is, and below `scratch` of a borrowed
  /// thread. nullopt if the process has no such code, or no room there. `state` is what ptrace
  /// calls NT_X86_XSTATE, or its first 512 bytes where the processor has no more.
  static std::optional<WayBack> prepare(pid_t pid, const user_regs_struct& saved,
                                        std::span<const std::byte> state, std::uint64_t mask);
};

}  // namespace vmsight
