// Connecting to a unix socket that may be busy or have a long path.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

/// A non-blocking stream socket, connected by `deadline`. timeout if the listener's backlog stays
/// full: "connect to WHOM: the socket is held by another client", with the hint; os.
Result<UniqueFd> connect_unix(const std::string& path,
                              std::chrono::steady_clock::time_point deadline, std::string_view whom,
                              std::string_view held_hint);

}  // namespace vmsight
