// How programs of ours begin and end: what each of them sets up, how it says what went wrong, and its
// exit status.
#pragma once

#include <functional>

#include "render/output.h"

namespace vmsight {

/// What `vmsight --help` says of them.
enum ExitStatus { exit_done = 0, exit_failed = 1, exit_usage = 2, exit_impossible = 3 };
ExitStatus exit_status_of(ErrorCode code);

/// A line and, if there is one, a line with the hint, on standard error. The exit status for it.
ExitStatus report_error(const Error& error);

/// What main() returns: runs `work`, which writes its results to `out`, writes what is left there, and
/// reports an error or an exception. If the reader of the output is gone, SIGPIPE ends the program.
int run_program(Output& out, const std::function<Result<void>()>& work);

}  // namespace vmsight
