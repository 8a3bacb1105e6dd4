// Connecting to a unix socket that may be busy, have a long path, or be another process's.
#pragma once

#include <sys/types.h>
#include <chrono>
#include <string>
#include <string_view>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

/// A non-blocking stream socket, connected by `deadline`. `path` may be one of path_of_process().
/// timeout if the listener's backlog stays full: "connect to WHOM: the socket is held by another
/// client", with the hint; os.
Result<UniqueFd> connect_unix(const std::string& path,
                              std::chrono::steady_clock::time_point deadline, std::string_view whom,
                              std::string_view held_hint);

/// Whether the process at the other end of a connected socket is `pid`: it listens itself, or it
/// holds the listening socket that somebody with its rights or root's (libvirtd, systemd) passed to
/// it. permission if not: the path on a VM's command line may lead to anybody's socket, and what is
/// sent there would be sent with our rights.
Result<void> check_listener(int socket, pid_t pid, std::string_view whom);

}  // namespace vmsight
