#include "study/call_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>

#include "base/clock.h"
#include "base/os.h"

namespace vmsight {
namespace {

constexpr std::size_t most_output = 64
                                    << 10;  // of a command that talks without end the last is kept

/// Never returns.
[[noreturn]] void become(const std::string& command, const std::string& calls, int output,
                         pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  ::setpgid(0, 0);
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(output, STDERR_FILENO);
  ::setenv("CALLS", calls.c_str(), 1);
  ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
  ::_exit(127);
}

/// What is there now; false at the end of it.
bool take_output(int fd, std::string& into) {
  char buffer[4096];
  const ssize_t size = ::read(fd, buffer, sizeof(buffer));
  if (size > 0) into.append(buffer, static_cast<std::size_t>(size));
  if (into.size() > most_output) into.erase(0, into.size() - most_output / 2);
  return size > 0 || (size < 0 && (errno == EAGAIN || errno == EINTR));
}

std::string last_line(std::string_view text) {
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  const std::size_t start = text.rfind('\n');
  return std::string(start == text.npos ? text : text.substr(start + 1));
}

/// A process that is ended with us, whatever comes.
class Child {
 public:
  explicit Child(pid_t pid)
      : pid_(pid), alive_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ < 0) return;
    ::kill(-pid_, SIGKILL);
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  /// Its status if it ends within that time.
  std::optional<int> ended(std::chrono::milliseconds within) {
    pollfd end{.fd = alive_.get(), .events = POLLIN};
    ::poll(&end, 1, static_cast<int>(within.count()));
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
    pid_ = -1;
    return status;
  }

 private:
  pid_t pid_;
  UniqueFd alive_;
};

Result<void> check_status(int status, const std::string& output) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  const std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                              : fmt::format("exit status {}", WEXITSTATUS(status));
  const std::string said = last_line(output);
  return Error{.code = ErrorCode::os,
               .message = fmt::format("the command that makes the guest call failed: {}{}{}", how,
                                      said.empty() ? "" : ": ", said),
               .hint = "it is run by sh, with the number of calls in $CALLS"};
}

}  // namespace

std::optional<std::uint64_t> parse_told_ns(std::string_view output) {
  std::optional<std::uint64_t> told;
  while (!output.empty()) {
    const std::size_t end = std::min(output.find('\n'), output.size());
    std::string_view line = output.substr(0, end);
    output.remove_prefix(std::min(end + 1, output.size()));
    if (!line.starts_with("ns ")) continue;
    line.remove_prefix(3);
    std::uint64_t value = 0;
    const auto [rest, error] = std::from_chars(line.data(), line.data() + line.size(), value);
    const std::string_view left(rest, static_cast<std::size_t>(line.data() + line.size() - rest));
    if (error == std::errc() && left.find_first_not_of(" \r") == left.npos) told = value;
  }
  return told;
}

Result<CallRun> CallCommand::run(std::uint64_t calls, double seconds,
                                 const Meanwhile& meanwhile) const {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return os_error(errno, "make a pipe");
  UniqueFd from(ends[0]), to(ends[1]);
  ::fcntl(to.get(), F_SETFL, 0);  // the command's side waits as programs expect
  const std::string number = std::to_string(calls);
  const Stopwatch watch;
  const pid_t parent = ::getpid(), pid = ::fork();
  if (pid < 0) return os_error(errno, "start the command that makes the guest call");
  if (pid == 0) become(command_, number, to.get(), parent);
  to.reset();
  Child child(pid);
  std::string output;
  std::optional<int> status;
  while (!(status = child.ended(meanwhile.every))) {
    take_output(from.get(), output);
    VMSIGHT_TRY_VOID(meanwhile.run());
    if (static_cast<double>(watch.elapsed_ns()) < seconds * 1e9) continue;
    return Error{.code = ErrorCode::timeout,
                 .message = fmt::format(
                     "the command that makes the guest call did not end within {:.0f} s", seconds),
                 .hint = "fewer --calls, or more --timeout"};
  }
  CallRun run{.elapsed_ns = watch.elapsed_ns()};
  for (std::size_t before = output.size() + 1; before != output.size();) {
    before = output.size();
    if (!take_output(from.get(), output)) break;
  }
  VMSIGHT_TRY_VOID(check_status(*status, output));
  run.told_ns = parse_told_ns(output);
  return run;
}

}  // namespace vmsight
