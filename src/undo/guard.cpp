#include "undo/guard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <span>

#include "base/clock.h"
#include "base/own_program.h"
#include "base/sealed_file.h"
#include "base/socket_fd.h"

namespace vmsight {
namespace {

using nlohmann::json;

constexpr int answer_timeout_ms = 10'000;
constexpr std::uint64_t attentive_ns = 200'000;
constexpr int end_timeout_ms = 5'000;
constexpr const char* program_name = "vmsight-guard";

UniqueFd pidfd_of(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (fd) ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
  return fd;
}

/// The descriptors of a program to be started. They are first moved above those numbers that it
/// finds them at, so that none is overwritten by another.
class Spawning {
 public:
  Spawning() {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawnattr_init(&attributes_);
  }
  Spawning(const Spawning&) = delete;
  Spawning& operator=(const Spawning&) = delete;
  ~Spawning() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }

  /// In ascending order of `number`.
  Result<void> give(int descriptor, int number) {
    constexpr int above = 16;
    UniqueFd high(::fcntl(descriptor, F_DUPFD_CLOEXEC, above));
    if (!high) return os_error(errno, "duplicate a descriptor");
    ::posix_spawn_file_actions_adddup2(&actions_, high.get(), number);
    high_.push_back(std::move(high));
    next_ = number + 1;
    return {};
  }

  Result<pid_t> run(const std::string& program, const std::string& argument) {
    for (int standard : {0, 1, 2}) {
      ::posix_spawn_file_actions_addopen(&actions_, standard, "/dev/null", O_RDWR, 0);
    }
    ::posix_spawn_file_actions_addclosefrom_np(&actions_, next_);
    sigset_t all, none;
    ::sigfillset(&all);
    ::sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes_, &all);
    sigset_t child = none;
    ::sigaddset(&child, SIGCHLD);  // an ignored one would not wake it
    ::posix_spawnattr_setsigdefault(&attributes_, &child);
    ::posix_spawnattr_setflags(&attributes_,
                               POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
    std::string name = program_name, word = argument;
    std::array<char*, 3> arguments{name.data(), word.data(), nullptr};
    std::array<char*, 1> environment{nullptr};
    pid_t pid = -1;
    const int failed = ::posix_spawn(&pid, program.c_str(), &actions_, &attributes_,
                                     arguments.data(), environment.data());
    if (failed != 0) return os_error(failed, "start " + program);
    return pid;
  }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
  std::vector<UniqueFd> high_;
  int next_ = 0;  // the first number that the program does not get
};

Error silent() {
  return {.code = ErrorCode::timeout,
          .message = "the guard of the VM does not answer in time",
          .hint = "is the QEMU process stuck in the host's kernel?"};
}

Error ended() {
  return {.code = ErrorCode::os,
          .message = "the guard of the VM has ended",
          .hint = "try again: the VM runs on as before",
          .os_errno = EPIPE};
}

Result<std::uint64_t> from_answer(const GuardAnswer& answer) {
  if (answer.ok) return answer.value;
  return Error{.code = answer.code,
               .message = answer.message.data(),
               .hint = answer.hint.data(),
               .os_errno = answer.os_errno};
}

}  // namespace

Result<std::unique_ptr<Guard>> Guard::start(const ProcessId& vm, const GuardSetup& setup) {
  VMSIGHT_TRY(const std::string program, own_program(program_name, "VMSIGHT_GUARD"));
  json config = setup.config;
  config["vm"] = {{"pid", vm.pid}, {"start_time", vm.start_time}};
  VMSIGHT_TRY(const UniqueFd config_fd, sealed_file(program_name, config.dump()));
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return os_error(errno, "make a socket pair");
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  const UniqueFd self = pidfd_of(::getpid());
  if (!self) return os_error(errno, "open a pidfd of this process");
  Spawning spawning;
  VMSIGHT_TRY_VOID(spawning.give(theirs.get(), guard_control_fd));
  VMSIGHT_TRY_VOID(spawning.give(self.get(), guard_owner_fd));
  VMSIGHT_TRY_VOID(spawning.give(config_fd.get(), guard_setup_fd));
  for (int number = guard_extra_fd; const int descriptor : setup.descriptors) {
    VMSIGHT_TRY_VOID(spawning.give(descriptor, number++));
  }
  std::unique_ptr<Guard> guard(new Guard);
  VMSIGHT_TRY(guard->pid_, spawning.run(program, setup.service));
  guard->socket_ = std::move(ours);
  guard->process_ = pidfd_of(guard->pid_);
  if (!guard->process_) return os_error(errno, "watch the guard of the VM");
  return guard;
}

Guard::~Guard() {
  socket_.reset();
  if (pid_ < 0) return;
  pollfd event{.fd = process_.get(), .events = POLLIN};
  // One that is stuck in QEMU is left to itself: it ends when it can.
  if (!process_ || ::poll(&event, 1, end_timeout_ms) > 0) ::waitpid(pid_, nullptr, 0);
}

bool Guard::alive() const {
  pollfd event{.fd = process_.get(), .events = POLLIN};
  return ::poll(&event, 1, 0) == 0;
}

Result<std::uint64_t> Guard::ask(GuardRequest request, std::uint64_t argument) {
  return exchange({.request = request, .argument = argument}, -1);
}

Result<std::uint64_t> Guard::ask(GuardRequest request, const json& payload) {
  const std::string text = payload.dump();
  if (text.size() > max_guard_payload) {
    return Error{
        .code = ErrorCode::unsupported,
        .message = fmt::format("change the VM: {} bytes at once are too much", text.size())};
  }
  VMSIGHT_TRY(const UniqueFd memory, sealed_file(program_name, text));
  return exchange({.request = request, .payload_size = static_cast<std::uint32_t>(text.size())},
                  memory.get());
}

Result<std::uint64_t> Guard::exchange(const GuardMessage& message, int descriptor) {
  const auto bytes = std::as_bytes(std::span(&message, 1));
  if (send_with_fd(socket_.get(), bytes, descriptor) != sizeof message) {
    return errno == EAGAIN ? silent() : ended();
  }
  VMSIGHT_TRY(const GuardAnswer answer, receive());
  return from_answer(answer);
}

Result<GuardAnswer> Guard::receive() {
  const Stopwatch watch;
  // Most answers come at once, and to be woken takes longer than they do.
  while (watch.elapsed_ns() < attentive_ns) {
    GuardAnswer answer;
    const ssize_t got = ::recv(socket_.get(), &answer, sizeof(answer), MSG_DONTWAIT);
    if (got == sizeof(answer)) return answer;
    if (got >= 0 || (errno != EAGAIN && errno != EINTR)) return ended();
    ::sched_yield();  // a thread that is to be halted may have to run first
  }
  while (true) {
    const auto passed = static_cast<int>(watch.elapsed_ns() / 1'000'000);
    pollfd event{.fd = socket_.get(), .events = POLLIN};
    const int ready = ::poll(&event, 1, std::max(0, answer_timeout_ms - passed));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return silent();
    GuardAnswer answer;
    if (::recv(socket_.get(), &answer, sizeof(answer), 0) != sizeof(answer)) return ended();
    return answer;
  }
}

}  // namespace vmsight
