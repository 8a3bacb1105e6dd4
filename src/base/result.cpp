#include "vmsight/result.h"

#include <cerrno>
#include <cstring>

namespace vmsight {

Error os_error(int err, std::string action) {
  Error error;
  error.code = (err == EPERM || err == EACCES) ? ErrorCode::permission
               : err == ESRCH                  ? ErrorCode::vm_gone
                                               : ErrorCode::os;
  error.os_errno = err;
  error.message =
      std::move(action) + ": " + (err == ESRCH ? "the process has ended" : std::strerror(err));
  return error;
}

void check_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "vmsight: internal error: %s (%s:%d)\n", expression, file, line);
  std::abort();
}

}  // namespace vmsight
