// The system calls that are left to what interprets bytes of a guest.
#pragma once

#include "sandbox/sandbox.h"

namespace vmsight {

/// From here on any other call is refused with an error, if programs are used to that, or ends the process after
/// one line on standard error.
Result<void> filter_system_calls(const SandboxRights& rights);

/// Whether the host's kernel has such filters.
bool has_system_call_filters();

}  // namespace vmsight
