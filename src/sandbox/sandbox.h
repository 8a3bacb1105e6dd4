// Gives up every right of this process but to compute, to read the memory that it has opened, and to write to
// descriptors that it holds. What interprets bytes of a guest runs so: whoever takes it over by them has gained nothing.
//
//   another user      where we are root: "vmsight" of /etc/passwd if there is one, else "nobody"; no groups
//   capabilities      none, or CAP_SYS_PTRACE alone where process_vm_readv of another user's QEMU needs it
//   no new privileges nothing that is executed gets any; nor may anything be executed
//   Landlock          no file can be opened, no TCP port bound or connected, no process outside signalled (Linux 5.13
//                     and later, each part as the host's kernel has it)
//   an empty root     where there is no Landlock, or another process is read, which it forbids: where we are root
//   seccomp           the system calls of sandbox/call_filter.cpp; process_vm_readv of one process only, and nothing
//                     is read from standard input, output and error
//
// /proc/PID/mem, opened before, could be read with fewer rights; but a page at a time, which made views of 1,300 files
// and 1,400 mappings take 1.3 to 1.8 times as long.
//
// Linux has no way back from any of it, and all of it holds for the whole process.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "vmsight/result.h"

namespace vmsight {

struct SandboxRights {
  pid_t reads = 0;          // the process that process_vm_readv may read; 0 = none
  std::vector<int> writes;  // descriptors that may be written at any place, and cut
};

/// unsupported if this process has more than one thread.
Result<void> check_may_enter_sandbox();

/// unsupported, and nothing is done, if the process has more than one thread. On another error some of the rights may be gone
/// already: what was meant to run without them must not. Ask sandbox_support() first.
Result<void> enter_sandbox(const SandboxRights& rights);

/// What is open now is none of ours, but for the standard descriptors: entering a sandbox closes it. For the beginning of a
/// program.
void note_inherited_descriptors();

/// Whether this process is in one.
bool is_in_sandbox();

/// What the host's kernel offers, for people: `works` if a sandbox can be entered at all.
struct SandboxSupport {
  bool works = false;
  std::string what;  // "seccomp, Landlock 4, user nobody"
};
SandboxSupport sandbox_support();

}  // namespace vmsight
