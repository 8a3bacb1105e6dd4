#include "base/wait.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>

namespace vmsight {

Result<void> wait_for(int fd, short events, std::chrono::steady_clock::time_point deadline,
                      std::string_view whom, std::string_view hint) {
  const std::string action = "wait for " + std::string(whom);
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd event{.fd = fd, .events = events, .revents = 0};
    const int ready = ::poll(&event, 1, std::max<int>(0, static_cast<int>(left.count())));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return os_error(errno, action);
    if (ready == 0) {
      return Error{.code = ErrorCode::timeout,
                   .message = action + ": no answer in time",
                   .hint = std::string(hint)};
    }
  }
}

}  // namespace vmsight
