#include "cli/own_process.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/isolated.h"
#include "base/os.h"

namespace vmsight {
namespace {

constexpr std::size_t max_said = 16U << 10;

/// "+text", or "-<code> message\nhint".
std::string as_text(const Result<std::string>& result) {
  if (result) return "+" + *result;
  const Error& error = result.error();
  return "-" + std::string(1, static_cast<char>('a' + static_cast<int>(error.code))) +
         error.message + "\n" + error.hint;
}

Result<std::string> from_text(std::string_view said) {
  if (said.starts_with('+')) return std::string(said.substr(1));
  if (said.size() < 2 || said[0] != '-' || said[1] < 'a' ||
      said[1] > static_cast<char>('a' + static_cast<int>(ErrorCode::usage))) {
    return Error{.code = ErrorCode::bad_data,
                 .message = "the process that looked at the guest ended without an answer"};
  }
  const std::string_view text = said.substr(2);
  const std::size_t end = std::min(text.find('\n'), text.size());
  return Error{.code = static_cast<ErrorCode>(said[1] - 'a'),
               .message = std::string(text.substr(0, end)),
               .hint = std::string(text.substr(std::min(end + 1, text.size())))};
}

}  // namespace

Result<std::string> in_own_process(const std::function<Result<std::string>()>& work) {
  const auto quietly = [&] {
    // Its caller has said what there is to say of the VM, and goes on to speak of others.
    const UniqueFd nothing(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    for (const int output : {STDOUT_FILENO, STDERR_FILENO}) {
      if (!nothing || ::dup2(nothing.get(), output) < 0)
        return as_text(os_error(errno, "open /dev/null"));
    }
    return as_text(work());
  };
  constexpr double patience_s = 60;  // a technique that is slow, on a host that is busy
  VMSIGHT_TRY(const std::string said,
              run_isolated(quietly,
                           {.what = "look at the guest", .seconds = patience_s, .most = max_said}));
  return from_text(said);
}

}  // namespace vmsight
