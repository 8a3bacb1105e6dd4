#include "vm/attendant.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>

#include "base/clock.h"

namespace vmsight {
namespace {

constexpr int answer_timeout_ms = 10'000;
constexpr int end_timeout_ms = 5'000;

/// An answer on the socket.
struct Answer {
  bool ok = false;
  ErrorCode code{};
  int os_errno = 0;
  std::uint64_t value = 0;
  std::array<char, 256> message{};
  std::array<char, 256> hint{};
};

template <std::size_t N>
void put(std::array<char, N>& into, const std::string& text) {
  std::memcpy(into.data(), text.data(), std::min(text.size(), N - 1));
}

Answer to_answer(const Result<std::uint64_t>& result) {
  Answer answer{.ok = result.has_value()};
  if (result) {
    answer.value = *result;
    return answer;
  }
  answer.code = result.error().code;
  answer.os_errno = result.error().os_errno;
  put(answer.message, result.error().message);
  put(answer.hint, result.error().hint);
  return answer;
}

Result<std::uint64_t> from_answer(const Answer& answer) {
  if (answer.ok) return answer.value;
  return Error{.code = answer.code,
               .message = answer.message.data(),
               .hint = answer.hint.data(),
               .os_errno = answer.os_errno};
}

UniqueFd pidfd_of(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (fd) ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
  return fd;
}

/// Closes every descriptor but these. Ours would otherwise live on in the attendant: pipes that
/// never end, and userfaultfds whose faults nobody handles.
void close_others(std::vector<unsigned> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned from = 0;
  for (const unsigned fd : kept) {
    if (fd > from) ::syscall(SYS_close_range, from, fd - 1, 0);
    from = fd + 1;
  }
  ::syscall(SYS_close_range, from, ~0U, 0);
}

/// A host that is short of memory should kill us, not the process that holds on to QEMU.
void spare_from_oom_killer() {
  const UniqueFd fd(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (fd) static_cast<void>(!::write(fd.get(), "-1000", 5));
}

void block_signals() {
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ::signal(SIGCHLD, SIG_DFL);  // an ignored one would not wake us
}

/// One request; false if there is nobody to ask any more, or nothing more to do.
bool serve_one(Service& service, int socket) {
  std::uint32_t request = 0;
  if (::recv(socket, &request, sizeof(request), 0) != sizeof(request)) return false;
  const Result<std::uint64_t> result = service.serve(request);
  const Answer answer = to_answer(result);
  ::send(socket, &answer, sizeof(answer), MSG_NOSIGNAL);
  return result || result.error().code != ErrorCode::timeout;
}

void serve_all(Service& service, int socket, int parent, int vm) {
  while (true) {
    std::array<pollfd, 4> events{{{.fd = service.watched(), .events = POLLIN},
                                  {.fd = socket, .events = POLLIN},
                                  {.fd = parent, .events = POLLIN},
                                  {.fd = vm, .events = POLLIN}}};
    if (::poll(events.data(), events.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    if (events[2].revents != 0 || events[3].revents != 0) return;
    if (events[0].revents != 0 && !service.on_event()) return;
    if (events[1].revents != 0 && !serve_one(service, socket)) return;
  }
}

[[noreturn]] void attend(pid_t parent_pid, pid_t vm_pid, UniqueFd socket,
                         const std::function<std::unique_ptr<Service>()>& make) {
  ::setsid();
  block_signals();
  ::prctl(PR_SET_NAME, "vmsight-attend");
  const UniqueFd parent = pidfd_of(parent_pid);
  const UniqueFd vm = pidfd_of(vm_pid);
  // A parent that died before its pidfd was opened is no longer our parent.
  if (!parent || !vm || ::getppid() != parent_pid) ::_exit(0);
  close_others({static_cast<unsigned>(socket.get()), static_cast<unsigned>(parent.get()),
                static_cast<unsigned>(vm.get())});
  spare_from_oom_killer();
  const std::unique_ptr<Service> service = make();
  serve_all(*service, socket.get(), parent.get(), vm.get());
  service->end();
  ::_exit(0);
}

}  // namespace

Result<std::unique_ptr<Attendant>> Attendant::start(
    pid_t pid, const std::function<std::unique_ptr<Service>()>& make) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return os_error(errno, "make a socket pair");
  }
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  std::unique_ptr<Attendant> attendant(new Attendant);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return os_error(errno, "start a process that attends to the VM");
  if (child == 0) attend(parent, pid, std::move(theirs), make);
  attendant->pid_ = child;
  attendant->socket_ = std::move(ours);
  attendant->process_ = pidfd_of(child);
  if (!attendant->process_) return os_error(errno, "watch the process that attends to the VM");
  return attendant;
}

Attendant::~Attendant() {
  socket_.reset();
  pollfd event{.fd = process_.get(), .events = POLLIN};
  // One that is stuck in QEMU is left to itself: it ends when it can.
  if (!process_ || ::poll(&event, 1, end_timeout_ms) > 0) ::waitpid(pid_, nullptr, 0);
}

bool Attendant::alive() const {
  pollfd event{.fd = process_.get(), .events = POLLIN};
  return ::poll(&event, 1, 0) == 0;
}

Result<std::uint64_t> Attendant::ask(std::uint32_t request) {
  const Error ended{.code = ErrorCode::os,
                    .message = "the process that attends to the VM has ended",
                    .hint = "try again: the VM runs on as before",
                    .os_errno = EPIPE};
  if (::send(socket_.get(), &request, sizeof(request), MSG_NOSIGNAL) != sizeof(request)) {
    return ended;
  }
  const Stopwatch watch;
  while (true) {
    const auto passed = static_cast<int>(watch.elapsed_ns() / 1'000'000);
    pollfd event{.fd = socket_.get(), .events = POLLIN};
    const int ready = ::poll(&event, 1, std::max(0, answer_timeout_ms - passed));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) {
      return Error{.code = ErrorCode::timeout,
                   .message = "the QEMU process did not take a system call in time",
                   .hint = "is the process stuck in the host's kernel?"};
    }
    Answer answer;
    if (::recv(socket_.get(), &answer, sizeof(answer), 0) != sizeof(answer)) return ended;
    return from_answer(answer);
  }
}

}  // namespace vmsight
