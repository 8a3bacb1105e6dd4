// Paths as another process sees them. Whoever runs a VM chooses its root directory and every
// symbolic link in it: a link there must lead nowhere in our own file system.
#pragma once

#include <sys/types.h>
#include <string>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

/// A path as QEMU sees it, as open_process_path() and people can use it: relative to QEMU's
/// directory; "/proc/PID/root/..." if its root directory or mount namespace is not ours.
std::string path_of_process(pid_t pid, const std::string& path);

/// Opens such a path (as O_PATH: nothing happens to what is there). Below "/proc/PID/root" links
/// are followed as the process would, absolute ones within its own root. Other paths are ours.
Result<UniqueFd> open_process_path(const std::string& path);

/// The path without the "/proc/PID/root" before it: what the process itself calls it.
std::string path_inside(const std::string& path);

}  // namespace vmsight
