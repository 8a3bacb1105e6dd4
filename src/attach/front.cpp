#include "attach/front.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <optional>
#include <set>
#include <span>

#include "attach/front_service.h"
#include "attach/kept_memory.h"
#include "attach/page_tables.h"
#include "base/socket_fd.h"
#include "base/text.h"

namespace vmsight {
namespace {

constexpr std::size_t max_name = 256, max_message = 512;
constexpr int cache_patience_ms = 30'000;  // a disk far away

std::size_t max_text(Front::Task task) {
  constexpr std::size_t of_service = std::size_t{64} << 20;  // a kernel's text, packed
  return task == Front::Task::service ? of_service : CacheFiles::max_file_bytes;
}

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
  std::uint32_t hint_size = 0;  // the last of these
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

/// As one message: each send wakes the other side.
template <typename Head>
bool send_message(int socket, const Head& head, std::string_view text, std::string_view more) {
  std::string message(reinterpret_cast<const char*>(&head), sizeof head);
  message.reserve(sizeof head + text.size() + more.size());
  message.append(text).append(more);
  return send_all(socket, std::as_bytes(std::span(message)));
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

  Result<std::string> open_memories() {
    for (const OpenMemory& open : duties_.memories) {
      VMSIGHT_TRY(auto memory, open());
      memories_.emplace_back(std::move(memory));
    }
    return std::string();
  }

  Result<std::string> do_task(Front::Task task, std::string_view name, std::string_view text) {
    using Task = Front::Task;
    if (task == Task::cr3) return ask_monitor();
    if (task == Task::memory) return ask_memory(name, text);
    if (task == Task::service && duties_.service != nullptr)
      return duties_.service->serve(name, text);
    if (task == Task::end) return end();
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

  /// They were asked for before the sandbox was entered; of a guest that rebooted since they say nothing.
  std::string once() { return questions_++ == 0 ? as_text(duties_.page_tables) : std::string(); }

  Result<std::string> ask_memory(std::string_view number, std::string_view question) {
    const auto index = parse_whole<std::size_t>(number);
    if (!index || *index >= memories_.size()) return refused(number);
    return memories_[*index].answer(question);
  }

  /// QEMU and the guest are let go of.
  Result<std::string> end() {
    memories_.clear();
    return std::string();
  }

  Result<std::string> ask_monitor() {
    if (!duties_.page_tables.empty()) return once();
    if (duties_.vm == nullptr || questions_++ >= max_questions) return std::string();
    return as_text(page_tables_of(*duties_.vm));
  }

  const FrontDuties& duties_;
  std::set<std::string, std::less<>> written_;
  std::size_t questions_ = 0;
  std::vector<MemoryDesk> memories_;
};

bool answer(int socket, const Result<std::string>& done) {
  Answer head{.ok = done.has_value()};
  std::string_view text, hint;
  if (done) {
    text = *done;
  } else {
    head.code = done.error().code;
    head.os_errno = done.error().os_errno;
    text = std::string_view(done.error().message).substr(0, max_message);
    hint = std::string_view(done.error().hint).substr(0, max_message);
  }
  head.size = static_cast<std::uint32_t>(text.size());
  head.hint_size = static_cast<std::uint32_t>(hint.size());
  return send_message(socket, head, text, hint);
}

Error front_ended() {
  return {.code = ErrorCode::os,
          .message = "the front of vmsight has ended",
          .hint = "try again",
          .os_errno = EPIPE};
}

bool comes_within(int socket, int patience_ms) {
  pollfd event{.fd = socket, .events = POLLIN, .revents = 0};
  int ready = 0;
  do {
    ready = ::poll(&event, 1, patience_ms);
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

/// nullopt if there was none.
std::optional<Result<std::string>> receive_answer(int socket, int patience_ms) {
  Answer head;
  std::string said, hint;
  if (patience_ms >= 0 && !comes_within(socket, patience_ms)) return std::nullopt;
  if (!receive_all(socket, std::as_writable_bytes(std::span(&head, 1))) ||
      !receive_text(socket, head.size, said) || !receive_text(socket, head.hint_size, hint)) {
    return std::nullopt;
  }
  if (head.ok) return Result<std::string>(std::move(said));
  return Result<std::string>(Error{.code = head.code,
                                   .message = std::move(said),
                                   .hint = std::move(hint),
                                   .os_errno = head.os_errno});
}

// While it works for its owner it does not see that he has ended: so it is told, and goes at once. What it holds of the
// guest is undone by the guards, as if vmsight had been killed.
volatile std::sig_atomic_t works = 0;
volatile std::sig_atomic_t owner = -1;
FrontService* to_end = nullptr;  // FrontService::end() may be called by a signal

void on_owner(int) {
  const int saved = errno;
  char byte = 0;
  if (works != 0 && ::recv(owner, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
    if (to_end != nullptr) to_end->end();
    ::_exit(1);
  }
  errno = saved;
}

void tell_of_owner(bool wanted) {
  const int flags = ::fcntl(owner, F_GETFL);
  ::fcntl(owner, F_SETFL, wanted ? flags | O_ASYNC : flags & ~O_ASYNC);
}

/// Of what may take long. He may have ended before it was said that we work.
void begin_work() {
  works = 1;
  if (owner < 0) return;
  tell_of_owner(true);
  on_owner(SIGIO);
}

void end_work() {
  if (works != 0 && owner >= 0) tell_of_owner(false);  // each request would be a signal
  works = 0;
}

void watch_owner(int socket, FrontService* service) {
  owner = socket;
  to_end = service;
  struct sigaction action {};
  action.sa_handler = on_owner;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGIO, &action, nullptr);
  sigset_t asked;
  sigemptyset(&asked);
  sigaddset(&asked, SIGIO);
  ::sigprocmask(SIG_UNBLOCK, &asked, nullptr);
  ::fcntl(socket, F_SETOWN, ::getpid());
}

/// A process of its own: it has no output, and is deaf to the terminal.
void become_front() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2,
                           SIGTSTP, SIGTTIN, SIGTTOU})
    ::signal(signal, SIG_IGN);
  ::prctl(PR_SET_NAME, "vmsight-front");
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(nothing, standard);
  ::close(nothing);
}

UniqueFd open_pidfd(pid_t pid) {
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

/// A process of its own, which nothing that is said to the front holds up: who reads QEMU's memory by its PID does not go on
/// when the VM has ended, and the PID is free for others. It holds nothing but these two.
[[noreturn]] void end_reader_after(int vm, int reader) {
  ::prctl(PR_SET_NAME, "vmsight-watch");
  constexpr int grace_ms = 5000;
  constexpr int places[] = {STDERR_FILENO + 1, STDERR_FILENO + 2};
  const int copies[] = {::fcntl(vm, F_DUPFD, places[1] + 1),
                        ::fcntl(reader, F_DUPFD, places[1] + 1)};
  for (const int i : {0, 1}) {
    if (::dup2(copies[i], places[i]) < 0) ::_exit(1);
  }
  ::close_range(static_cast<unsigned>(places[1]) + 1, ~0U, 0);
  pollfd events[] = {{.fd = places[0], .events = POLLIN, .revents = 0},
                     {.fd = places[1], .events = POLLIN, .revents = 0}};
  while (::poll(events, 2, -1) < 0 && errno == EINTR) {
  }
  if (events[1].revents == 0 && ::poll(&events[1], 1, grace_ms) == 0)
    ::syscall(SYS_pidfd_send_signal, places[1], SIGKILL, nullptr, 0);
  ::_exit(0);
}

void serve_requests(int socket, const FrontDuties& duties) {
  Desk desk(duties);
  if (!duties.memories.empty()) {
    watch_owner(socket, duties.service);
    begin_work();
    const auto opened = desk.open_memories();
    if (!answer(socket, opened) || !opened) return;
  }
  while (true) {
    end_work();
    Request request;
    std::string name, text;
    if (!receive_all(socket, std::as_writable_bytes(std::span(&request, 1)))) return;
    if (request.name_size > max_name || request.text_size > max_text(request.task)) return;
    if (!receive_text(socket, request.name_size, name) ||
        !receive_text(socket, request.text_size, text)) {
      return;
    }
    if (request.task != Front::Task::memory || !MemoryDesk::is_brief(text)) begin_work();
    if (!answer(socket, desk.do_task(request.task, name, text))) return;
  }
}

}  // namespace

void serve_as_front(int socket, const FrontDuties& duties) {
  serve_requests(socket, duties);
  if (duties.service != nullptr) duties.service->end();
}

Result<std::shared_ptr<Front>> Front::start(const FrontDuties& duties) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return os_error(errno, "make a socket pair");
  UniqueFd ours(ends[0]), theirs(ends[1]);
  UniqueFd self, vm;
  if (duties.ends_reader) {
    self = open_pidfd(::getpid());
    vm = open_pidfd(duties.vm->info().pid);
    if (!self || !vm) return os_error(errno, "open a pidfd");
    VMSIGHT_TRY_VOID(duties.vm->check_alive());  // so that it is the VM's
  }
  const pid_t pid = ::fork();
  if (pid < 0) return os_error(errno, "fork the front of vmsight");
  if (pid == 0) {
    try {
      ours.reset();
      become_front();
      serve_as_front(theirs.get(), duties);
    } catch (...) {
      ::_exit(1);  // and not into what called us
    }
    ::_exit(0);
  }
  theirs.reset();  // its end is seen then
  const pid_t watch = duties.ends_reader ? ::fork() : 0;
  if (watch < 0) return os_error(errno, "fork what ends vmsight after its VM");
  if (watch == 0 && duties.ends_reader) {
    ours.reset();
    become_front();
    end_reader_after(vm.get(), self.get());
  }
  std::shared_ptr<Front> front(new Front);
  front->pid_ = pid;
  front->socket_ = std::move(ours);
  if (!duties.memories.empty()) {
    const auto opened = receive_answer(front->socket_.get(), -1);
    if (!opened) return front_ended();
    if (!*opened) return opened->error();
    front->keeps_memory_ = true;
  }
  return front;
}

/// It ends by itself now; only what it holds of QEMU is worth to wait for.
Front::~Front() {
  if (keeps_memory_) static_cast<void>(ask(Task::end));
  socket_.reset();
  if (pid_ > 0) ::waitpid(pid_, nullptr, WNOHANG);
}

Result<std::string> Front::ask(Task task, std::string_view name, std::string_view text) {
  if (name.size() > max_name || text.size() > max_text(task))
    return Error{.code = ErrorCode::usage, .message = "ask the front of vmsight: too much at once"};
  if (!socket_) return front_ended();
  const Request request{.task = task,
                        .name_size = static_cast<std::uint32_t>(name.size()),
                        .text_size = static_cast<std::uint32_t>(text.size())};
  if (!send_message(socket_.get(), request, name, text)) {
    socket_.reset();
    return front_ended();
  }
  const bool is_of_cache = task == Task::list || task == Task::read || task == Task::replace;
  auto answered = receive_answer(socket_.get(), is_of_cache ? cache_patience_ms : -1);
  if (answered) return *std::move(answered);
  // What comes now, if anything, would be taken for the answer to what is asked next.
  socket_.reset();
  return front_ended();
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
