// Kernel stacks, innermost frame first.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

/// One frame of a kernel stack.
struct Frame {
  GuestVirt pc;          // the address in code, as the kernel's own traces show it
  GuestVirt sp;          // where on the stack it was found
  bool reliable = true;  // false: found by frame pointers, beyond code that says how it is unwound
};

/// What a task does in the kernel.
struct KernelStack {
  std::vector<Frame> frames;                      // innermost first
  bool complete = false;                          // reached user mode or a thread's start
  std::string_view stopped;                       // why not, if not complete; static text
  std::optional<std::uint64_t> system_call;       // its number, if the task came in by one
  std::optional<std::uint64_t> user_ip, user_sp;  // where user mode will go on
};

/// Where a task stands that runs: of a halted guest.
struct StackStart {
  std::uint64_t ip = 0, sp = 0, bp = 0;
};

/// Of one kernel, and of the modules that were loaded when it was made.
class StackUnwinder {
 public:
  virtual ~StackUnwinder() = default;
  /// The stack of a task that does not run now, at most 256 frames. A stack that cannot be
  /// followed to its end is returned as far as it goes; `fault` if the task itself is unreadable.
  /// On a live guest the task may run meanwhile: a caller who must know compares its context switch
  /// counts (task_struct nvcsw, nivcsw) before and after.
  virtual Result<KernelStack> unwind(Reader& reader, GuestVirt task) = 0;
  /// The same of a task that stands at an instruction with these registers.
  virtual Result<KernelStack> unwind(Reader& reader, GuestVirt task, const StackStart& start) = 0;
};

}  // namespace vmsight
