// What a kernel knows of its function tracing: the places that it patches, and what they may call.
//
//   ftrace_pages_start   places: a NOP or a call at the beginning of each function
//   ftrace_ops_list      tracers: a handler, and often a trampoline of their own that calls it
//   removed_ops          the tracer that is just being switched off: not in the list any more
//   ftrace_ops_trampoline_list   trampolines, also of tracers that are switched off
//   direct_functions     places that call something else at once: trampolines of BPF
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

struct FtraceTracer {
  GuestVirt at;  // struct ftrace_ops
  GuestVirt handler;
  GuestVirt trampoline;  // 0: none
  std::uint64_t trampoline_size = 0;
  GuestVirt direct;  // what its places call instead; 0: nothing
};

/// Also the one that is just being switched off. unsupported if the kernel has none; fault if the list cannot be read or has no end.
Result<std::vector<FtraceTracer>> read_ftrace_tracers(Kernel& kernel, Reader& reader);

/// Those with a trampoline that was made for them, in use or not. Empty if the kernel has no such list;
/// fault as above.
Result<std::vector<FtraceTracer>> read_ftrace_trampolines(Kernel& kernel, Reader& reader);

/// By the place's address, what it calls. Empty if the kernel has no such table; fault if it cannot
/// be read.
Result<std::map<GuestVirt, GuestVirt>> read_ftrace_direct(Kernel& kernel, Reader& reader);

/// The addresses of all places, of modules too. unsupported if the kernel has none; fault if its
/// records cannot be read, or are more than any kernel has.
Result<std::vector<GuestVirt>> read_ftrace_places(Kernel& kernel, Reader& reader);

}  // namespace vmsight
