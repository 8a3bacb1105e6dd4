#include "attach/front.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <set>
#include <span>

#include "attach/page_tables.h"
#include "base/socket_fd.h"
#include "base/text.h"

namespace vmsight {
namespace {

constexpr std::size_t max_name = 256, max_message = 512;

/// Before each request; the name and the text follow.
struct Request {
  Front::Task task{};
  std::uint32_t name_size = 0;
  std::uint32_t text_size = 0;
};

/// Before each answer; the text follows: what was asked for, or an error's message.
struct Answer {
  bool ok = false;
  ErrorCode code{};
  int os_errno = 0;
  std::uint32_t size = 0;
};

bool receive_all(int socket, std::span<std::byte> into) {
  while (!into.empty()) {
    const ssize_t got = ::recv(socket, into.data(), into.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    into = into.subspan(static_cast<std::size_t>(got));
  }
  return true;
}

template <typename T>
std::span<const std::byte> bytes_of(const T& object) {
  return std::as_bytes(std::span(&object, 1));
}

bool send_text(int socket, std::string_view text) {
  return send_all(socket, std::as_bytes(std::span(text)));
}

bool receive_text(int socket, std::size_t size, std::string& into) {
  into.resize(size);
  return receive_all(socket, std::as_writable_bytes(std::span(into)));
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text.append(name).append("\n");
  return text;
}

std::string as_text(const std::vector<std::uint64_t>& numbers) {
  std::string text;
  for (const std::uint64_t number : numbers) text.append(std::to_string(number)).append("\n");
  return text;
}

/// What one process may ask for, whoever it has become.
class Desk {
 public:
  explicit Desk(const FrontDuties& duties) : duties_(duties) {}

  Result<std::string> do_task(Front::Task task, std::string_view name, std::string_view text) {
    using Task = Front::Task;
    if (task == Task::cr3) return ask_monitor();
    if (duties_.cache == nullptr)
      return Error{.code = ErrorCode::unsupported, .message = "there is no cache"};
    switch (task) {
      case Task::list: {
        if (text != kernel_file && text != place_file) return refused(text);
        VMSIGHT_TRY(const std::vector<std::string> names, duties_.cache->list(name, text));
        return joined(names);
      }
      case Task::read:
        if (!is_ours(name)) return refused(name);
        return duties_.cache->read(name);
      case Task::replace:
        if (!is_ours(name) || !may_write(name)) return refused(name);
        VMSIGHT_TRY_VOID(duties_.cache->replace(name, text));
        return std::string();
      default:
        return Error{.code = ErrorCode::usage, .message = "that is no task of the front"};
    }
  }

 private:
  /// A guest has one kernel at a time, and few builds in memory; a question to QEMU costs its main loop time.
  static constexpr std::size_t max_written = 8, max_questions = 64;

  static Error refused(std::string_view name) {
    return {.code = ErrorCode::permission,
            .message = fmt::format("the front does not open \"{}\"", name)};
  }

  /// Any kernel's file, but of the places only this VM's.
  bool is_ours(std::string_view name) const {
    return name.ends_with(kernel_file) || name == duties_.identity + std::string(place_file);
  }

  bool may_write(std::string_view name) {
    if (written_.contains(name)) return true;
    return written_.size() < max_written && written_.emplace(name).second;
  }

  Result<std::string> ask_monitor() {
    if (duties_.vm == nullptr || questions_++ >= max_questions) return std::string();
    return as_text(page_tables_of(*duties_.vm));
  }

  const FrontDuties& duties_;
  std::set<std::string, std::less<>> written_;
  std::size_t questions_ = 0;
};

bool answer(int socket, const Result<std::string>& done) {
  Answer head{.ok = done.has_value()};
  std::string_view text;
  if (done) {
    text = *done;
  } else {
    head.code = done.error().code;
    head.os_errno = done.error().os_errno;
    text = std::string_view(done.error().message).substr(0, max_message);
  }
  head.size = static_cast<std::uint32_t>(text.size());
  return send_all(socket, bytes_of(head)) && send_text(socket, text);
}

Error front_ended() {
  return {.code = ErrorCode::os,
          .message = "the front of vmsight has ended",
          .hint = "try again",
          .os_errno = EPIPE};
}

/// A process of its own: it has no output, and is deaf to the terminal.
void become_front() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2})
    ::signal(signal, SIG_IGN);
  ::prctl(PR_SET_NAME, "vmsight-front");
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(nothing, standard);
  ::close(nothing);
}

/// Until there is something to do. Whoever goes on after the end of the VM is ended.
void wait_for_request(int socket, const FrontDuties& duties, int reader) {
  constexpr int look_ms = 1000, grace_looks = 5;
  for (int gone = 0;;) {
    pollfd event{.fd = socket, .events = POLLIN};
    if (::poll(&event, 1, reader < 0 ? -1 : look_ms) != 0) return;
    if (duties.vm == nullptr || duties.vm->check_alive()) continue;
    if (++gone >= grace_looks) ::syscall(SYS_pidfd_send_signal, reader, SIGKILL, nullptr, 0);
  }
}

}  // namespace

void serve_as_front(int socket, const FrontDuties& duties, int reader) {
  Desk desk(duties);
  while (true) {
    wait_for_request(socket, duties, reader);
    Request request;
    std::string name, text;
    if (!receive_all(socket, std::as_writable_bytes(std::span(&request, 1)))) return;
    if (request.name_size > max_name || request.text_size > CacheFiles::max_file_bytes) return;
    if (!receive_text(socket, request.name_size, name) ||
        !receive_text(socket, request.text_size, text)) {
      return;
    }
    if (!answer(socket, desk.do_task(request.task, name, text))) return;
  }
}

Result<std::shared_ptr<Front>> Front::start(const FrontDuties& duties) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return os_error(errno, "make a socket pair");
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  const timeval patience{.tv_sec = 30, .tv_usec = 0};  // a disk far away
  ::setsockopt(ours.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const UniqueFd self(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  const pid_t pid = ::fork();
  if (pid < 0) return os_error(errno, "fork the front of vmsight");
  if (pid == 0) {
    try {
      ours.reset();
      become_front();
      serve_as_front(theirs.get(), duties, duties.ends_reader ? self.get() : -1);
    } catch (...) {
      ::_exit(1);  // and not into what called us
    }
    ::_exit(0);
  }
  std::shared_ptr<Front> front(new Front);
  front->pid_ = pid;
  front->socket_ = std::move(ours);
  return front;
}

/// It ends by itself now; whether it has already is not worth to wait for.
Front::~Front() {
  socket_.reset();
  if (pid_ > 0) ::waitpid(pid_, nullptr, WNOHANG);
}

Result<std::string> Front::ask(Task task, std::string_view name, std::string_view text) {
  if (name.size() > max_name || text.size() > CacheFiles::max_file_bytes)
    return Error{.code = ErrorCode::usage, .message = "ask the front of vmsight: too much at once"};
  const Request request{.task = task,
                        .name_size = static_cast<std::uint32_t>(name.size()),
                        .text_size = static_cast<std::uint32_t>(text.size())};
  if (!send_all(socket_.get(), bytes_of(request)) || !send_text(socket_.get(), name) ||
      !send_text(socket_.get(), text)) {
    return front_ended();
  }
  Answer head;
  std::string said;
  if (!receive_all(socket_.get(), std::as_writable_bytes(std::span(&head, 1))) ||
      !receive_text(socket_.get(), head.size, said)) {
    return front_ended();
  }
  if (head.ok) return said;
  return Error{.code = head.code, .message = std::move(said), .os_errno = head.os_errno};
}

std::vector<std::uint64_t> Front::cr3() {
  std::vector<std::uint64_t> values;
  const auto said = ask(Task::cr3);
  if (!said) return values;
  for (const std::string_view line : split_at(*said, '\n')) {
    if (const auto value = parse_whole<std::uint64_t>(line)) values.push_back(*value);
  }
  return values;
}

Result<std::vector<std::string>> FrontCache::list(std::string_view prefix,
                                                  std::string_view suffix) {
  VMSIGHT_TRY(const std::string said, front_->ask(Front::Task::list, prefix, suffix));
  std::vector<std::string> names;
  for (const std::string_view name : split_at(said, '\n')) names.emplace_back(name);
  return names;
}

Result<std::string> FrontCache::read(std::string_view name) {
  return front_->ask(Front::Task::read, name);
}

Result<void> FrontCache::replace(std::string_view name, std::string_view text) {
  VMSIGHT_TRY(const std::string done, front_->ask(Front::Task::replace, name, text));
  return {};
}

}  // namespace vmsight
