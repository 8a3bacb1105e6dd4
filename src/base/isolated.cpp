#include "base/isolated.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <array>
#include <cerrno>
#include <csignal>

#include "base/clock.h"
#include "base/os.h"

namespace vmsight {
namespace {

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

enum class Answered { whole, late, too_much };

/// Until the writer has closed its end.
Answered read_until(int fd, std::uint64_t deadline_ns, std::size_t most, std::string& into) {
  std::array<char, 65536> buffer;
  for (;;) {
    const std::uint64_t now = monotonic_ns();
    if (now >= deadline_ns) return Answered::late;
    pollfd ready{.fd = fd, .events = POLLIN};
    const auto wait_ms =
        static_cast<int>(std::min<std::uint64_t>((deadline_ns - now) / 1'000'000 + 1, 1000));
    if (::poll(&ready, 1, wait_ms) <= 0) continue;
    const ssize_t size = ::read(fd, buffer.data(), buffer.size());
    if (size == 0) return Answered::whole;
    if (size > 0) into.append(buffer.data(), static_cast<std::size_t>(size));
    if (into.size() > most) return Answered::too_much;
  }
}

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

Result<std::string> run_isolated(const std::function<std::string()>& work,
                                 const IsolatedLimits& limits) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return os_error(errno, "make a pipe");
  UniqueFd from(ends[0]), to(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return os_error(errno, limits.what + ": start a process for it");
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    write_all(to.get(), work());
    ::_exit(0);
  }
  to.reset();
  std::string answer;
  const std::uint64_t deadline = monotonic_ns() + static_cast<std::uint64_t>(limits.seconds * 1e9);
  const Answered answered = read_until(from.get(), deadline, limits.most, answer);
  if (answered != Answered::whole) ::kill(child, SIGKILL);
  const int status = wait_for(child);
  if (answered == Answered::late) {
    return Error{
        .code = ErrorCode::timeout,
        .message = fmt::format("{}: not done after {:.0f} s", limits.what, limits.seconds)};
  }
  if (answered == Answered::too_much) {
    return Error{.code = ErrorCode::bad_data,
                 .message = fmt::format("{}: its process says too much", limits.what)};
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return Error{.code = ErrorCode::os,
                 .message = WIFSIGNALED(status) ? fmt::format("{}: its process died of signal {}",
                                                              limits.what, WTERMSIG(status))
                                                : limits.what + ": its process failed"};
  }
  return answer;
}

}  // namespace vmsight
