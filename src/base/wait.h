// Waiting for a file descriptor, with a deadline.
#pragma once

#include <chrono>
#include <string_view>

#include "vmsight/result.h"

namespace vmsight {

/// Until `fd` is ready for `events` (POLLIN, POLLOUT) or broken. timeout at the deadline: "wait for
/// WHOM: no answer in time", with the hint.
Result<void> wait_for(int fd, short events, std::chrono::steady_clock::time_point deadline,
                      std::string_view whom, std::string_view hint = "");

}  // namespace vmsight
