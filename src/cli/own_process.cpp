#include "cli/own_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <string_view>

#include "base/clock.h"
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

bool is_whole(std::string_view said) { return !said.empty() && said.size() < max_said; }

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t put = ::write(fd, text.data(), text.size());
    if (put < 0) return;
    text.remove_prefix(static_cast<std::size_t>(put));
  }
}

/// Until the end, or until nothing more is waited for.
std::string read_all(int fd) {
  constexpr int patience_ms = 60'000;  // a technique that is slow, on a host that is busy
  const Stopwatch watch;
  std::string said;
  std::array<char, 4096> part{};
  while (said.size() < max_said) {
    const auto passed = static_cast<int>(watch.elapsed_ns() / 1'000'000);
    pollfd event{.fd = fd, .events = POLLIN};
    if (passed >= patience_ms || ::poll(&event, 1, patience_ms - passed) == 0) break;
    const ssize_t got = ::read(fd, part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    said.append(part.data(), static_cast<std::size_t>(got));
  }
  return said;
}

}  // namespace

Result<std::string> in_own_process(const std::function<Result<std::string>()>& work) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return os_error(errno, "make a pipe");
  UniqueFd reads(ends[0]);
  UniqueFd writes(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return os_error(errno, "fork");
  if (pid == 0) {
    reads.reset();
    // Its caller has said what there is to say of the VM.
    const UniqueFd nothing(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    if (nothing) ::dup2(nothing.get(), STDERR_FILENO);
    write_all(writes.get(), as_text(work()));
    ::_exit(0);
  }
  writes.reset();
  const std::string said = read_all(reads.get());
  reads.reset();
  if (!is_whole(said)) ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  return from_text(said);
}

}  // namespace vmsight
