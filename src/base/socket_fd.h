// Sending bytes over a unix socket, and a file descriptor with them (SCM_RIGHTS in unix(7)).
#pragma once

#include <sys/types.h>
#include <cstddef>
#include <span>

#include "base/os.h"

namespace vmsight {

/// As send(2), but never waits and raises no SIGPIPE. The receiver gets a copy of `descriptor`,
/// unless that is -1, with the first of the bytes.
ssize_t send_with_fd(int socket, std::span<const std::byte> bytes, int descriptor);

/// As recv(2), but never waits. `descriptor` is replaced if one came along; it is closed on exec.
/// Of several only the first is taken.
ssize_t receive_with_fd(int socket, std::span<std::byte> into, UniqueFd& descriptor);

/// All of the bytes, however long that takes; raises no SIGPIPE. False if the other end is closed.
bool send_all(int socket, std::span<const std::byte> bytes);

}  // namespace vmsight
