// Events of system calls as strace writes them.
//
//   openat(AT_FDCWD, "/etc/none", O_RDONLY) = -1 ENOENT (No such file or directory) <41.2 us>
//   exit_group(0)                           = ?
//   --- SIGCHLD ---                           signal_setup_done(), told at its entry
//   +++ killed by SIGKILL +++                 do_exit()
#pragma once

#include <string>

#include "vmsight/probe.h"

namespace vmsight {

/// The functions whose entries tell of signals that a handler gets, and of a thread's end.
inline constexpr std::string_view signal_function = "signal_setup_done", exit_function = "do_exit";

/// "[i386] " before system calls of other than 64-bit programs.
std::string abi_text(const ProbeEvent& event);
/// Without time, CPU and process; one line, not ended. Other functions are shown like system calls.
std::string strace_text(const ProbeEvent& event);

}  // namespace vmsight
