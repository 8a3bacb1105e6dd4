// Landlock: from here on no file is opened and nothing outside of this process reached. Its own description is
// Documentation/userspace-api/landlock.rst of the Linux kernel; its system calls are made by their numbers, as the C
// library of Debian 12 has no functions for them.
#pragma once

#include "vmsight/result.h"

namespace vmsight {

/// The version of the interface that the host's kernel has; 0 = none.
int landlock_version();

/// Refuses all that this version can. Does nothing where there is none. Needs no_new_privs.
Result<void> close_files_and_network();

}  // namespace vmsight
