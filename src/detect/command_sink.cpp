// Alarms to programs, one process each.
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>

#include "detect/background_sink.h"
#include "kernel/guest_text.h"

extern char** environ;  // NOLINT

namespace vmsight::detect {
namespace {

using Clock = std::chrono::steady_clock;

/// A file in memory: a program that does not read it makes nobody wait.
Result<UniqueFd> input_of(const std::string& text, const std::string& action) {
  UniqueFd fd(::memfd_create("vmsight-alarm", MFD_CLOEXEC));
  if (!fd) return os_error(errno, action);
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t written = ::write(fd.get(), text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return os_error(errno, action);
    done += static_cast<std::size_t>(written);
  }
  if (::lseek(fd.get(), 0, SEEK_SET) < 0) return os_error(errno, action);
  return fd;
}

/// What the child has other than its parent: descriptors, a process group, its signals.
class SpawnPlan {
 public:
  explicit SpawnPlan(int input) {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawn_file_actions_adddup2(&actions_, input, STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions_, STDERR_FILENO, STDOUT_FILENO);
    ::posix_spawn_file_actions_addclosefrom_np(&actions_, STDERR_FILENO + 1);
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_init(&attributes_);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setpgroup(&attributes_, 0);
    ::posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;
  ~SpawnPlan() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }

  /// 0 or an errno.
  int spawn(const std::vector<std::string>& words, pid_t& pid) const {
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    return ::posix_spawnp(&pid, arguments[0], &actions_, &attributes_, arguments.data(), environ);
  }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

enum class Ended : std::uint8_t { by_itself, in_no_time, stopped };

/// Until the process ends, the time is over, or `stop` can be read.
Ended wait_for_end(int process, int stop, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd events[] = {{.fd = process, .events = POLLIN, .revents = 0},
                       {.fd = stop, .events = POLLIN, .revents = 0}};
    const int timeout = std::max<int>(0, static_cast<int>(left.count()));
    const int ready = ::poll(events, std::size(events), timeout);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return Ended::in_no_time;
    return events[0].revents != 0 ? Ended::by_itself : Ended::stopped;
  }
}

/// The status of a child that has ended, or is about to.
int reap(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return 0;  // somebody ignores SIGCHLD: nothing is known of it
  }
  return status;
}

class Command {
 public:
  explicit Command(CommandOptions options) : options_(std::move(options)) {
    words_ = options_.shell_line.empty()
                 ? options_.arguments
                 : std::vector<std::string>{"/bin/sh", "-c", options_.shell_line};
    const bool is_shell = words_.size() == 3 && words_[1] == "-c";
    const std::string& shown = is_shell ? words_[2] : words_[0];
    name_ = fmt::format("run {}", escape_bytes(shown.substr(0, 80)));
  }
  const std::string& name() const { return name_; }

  Result<void> run(const Alarm& alarm, int stop) const {
    const std::string text = format_alarm(alarm, options_.format, options_.hostname) + '\n';
    VMSIGHT_TRY(const UniqueFd input, input_of(text, name_));
    pid_t pid = 0;
    if (const int error = SpawnPlan(input.get()).spawn(words_, pid); error != 0) {
      return os_error(error, name_);
    }
    const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    const Ended ended =
        process ? wait_for_end(process.get(), stop, Clock::now() + options_.limit) : Ended::stopped;
    // It is not reaped yet, so the number of the group is no one else's.
    if (ended != Ended::by_itself) ::kill(-pid, SIGKILL);
    return judge(ended, reap(pid));
  }

 private:
  Error failed(std::string what) const {
    return {.code = ErrorCode::os, .message = name_ + ": " + std::move(what)};
  }
  Result<void> judge(Ended ended, int status) const {
    if (ended == Ended::in_no_time) {
      return Error{
          .code = ErrorCode::timeout,
          .message = fmt::format("{}: it was ended after {} ms", name_, options_.limit.count())};
    }
    if (ended == Ended::stopped) return failed("it was ended, as vmsight ends");
    if (WIFSIGNALED(status)) return failed(fmt::format("it died of signal {}", WTERMSIG(status)));
    if (WEXITSTATUS(status) == 0) return {};
    return failed(fmt::format("it exited with {}", WEXITSTATUS(status)));
  }

  CommandOptions options_;
  std::vector<std::string> words_;
  std::string name_;
};

/// Alarms without a command take no thread.
class RequestedCommandsSink final : public AlarmSink {
 public:
  explicit RequestedCommandsSink(std::unique_ptr<AlarmSink> runner) : runner_(std::move(runner)) {}
  Result<void> deliver(const Alarm& alarm) override {
    return alarm.commands.empty() ? Result<void>() : runner_->deliver(alarm);
  }
  Result<void> flush() override { return runner_->flush(); }
  std::uint64_t lost() const override { return runner_->lost(); }

 private:
  std::unique_ptr<AlarmSink> runner_;
};

}  // namespace

Result<std::unique_ptr<AlarmSink>> open_requested_commands_sink(const std::string& hostname) {
  using namespace std::chrono_literals;
  const auto send = [hostname](std::span<const Alarm> alarms, int stop) {
    Result<void> first;
    for (const AlarmCommand& one : alarms.front().commands) {
      const Command command({.arguments = one.arguments, .limit = one.limit, .hostname = hostname});
      auto done = command.run(alarms.front(), stop);
      if (!done && first) first = std::move(done);
    }
    return first;
  };
  VMSIGHT_TRY(auto runner, make_background_sink({.name = "run what rules ask for",
                                                 .threads = 8,
                                                 .waiting = 64,
                                                 .batch = 1,
                                                 .flush_limit = 15min},
                                                send));
  return std::unique_ptr<AlarmSink>(std::make_unique<RequestedCommandsSink>(std::move(runner)));
}

Result<std::unique_ptr<AlarmSink>> open_command_sink(CommandOptions options) {
  constexpr unsigned most_at_once = 64;
  const bool has_one = options.arguments.empty() != options.shell_line.empty();
  if (!has_one || options.at_once == 0 || options.at_once > most_at_once) {
    return Error{.code = ErrorCode::usage,
                 .message =
                     "a command for alarms needs arguments or a line for the shell, and 1 "
                     "to 64 processes at once"};
  }
  const auto flush_limit = options.limit + std::chrono::seconds(1);
  const unsigned threads = options.at_once;
  const std::size_t waiting = options.waiting;
  const auto command = std::make_shared<const Command>(std::move(options));
  return make_background_sink({.name = command->name(),
                               .threads = threads,
                               .waiting = waiting,
                               .batch = 1,
                               .flush_limit = flush_limit},
                              [command](std::span<const Alarm> alarms, int stop) {
                                return command->run(alarms.front(), stop);
                              });
}

}  // namespace vmsight::detect
