// Sinks in a process of their own:
//
//   watch -- {"do": "deliver", "alarm": ...} --> the process that has the sinks
//         <-- {"lost": N, "error": ...} -------
//
// It is forked before a guest is attached, ends when we close the socket, and delivers first what it got.
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>

#include "base/socket_fd.h"
#include "detect/alarm_message.h"
#include "detect/background_sink.h"

namespace vmsight::detect {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

Json to_json(const Error& error) {
  return {{"code", static_cast<int>(error.code)},
          {"message", error.message},
          {"hint", error.hint},
          {"errno", error.os_errno}};
}

/// Of an answer: what a sink said, if anything.
std::optional<Error> error_of(const Json& answer) {
  const Json error = answer.value("error", Json());
  if (!error.is_object()) return std::nullopt;
  return Error{.code = static_cast<ErrorCode>(error.value("code", 0)),
               .message = error.value("message", ""),
               .hint = error.value("hint", ""),
               .os_errno = error.value("errno", 0)};
}

// ---- the process that has the sinks ------------------------------------------------------------

class SinkProcess {
 public:
  explicit SinkProcess(int socket) : socket_(socket) {}

  /// Until the other side has ended.
  void run(const OpenSinks& open) {
    if (!receive()) return;
    auto opened = open();
    if (!opened) return answer(std::move(opened).error());
    sinks_ = *std::move(opened);
    answer({});
    while (const auto message = receive()) serve(*message);
    static_cast<void>(each([](AlarmSink& sink) { return sink.flush(); }));
  }

 private:
  std::optional<Json> receive() {
    while (true) {
      auto message = take_message(came_);
      if (!message) return std::nullopt;
      if (*message) return std::move(*message);
      constexpr std::size_t piece = 64 * 1024;
      const std::size_t before = came_.size();
      came_.resize(before + piece);
      const ssize_t got = ::recv(socket_, came_.data() + before, piece, 0);
      came_.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
      if (got == 0 || (got < 0 && errno != EINTR)) return std::nullopt;
    }
  }

  void serve(const Json& message) {
    const std::string what = message.value("do", "");
    if (what == "flush") return answer(each([](AlarmSink& sink) { return sink.flush(); }));
    if (what == "reopen") return answer(each([](AlarmSink& sink) { return sink.reopen(); }));
    const auto alarm = unpack_alarm(message.value("alarm", Json()));
    if (!alarm) return answer(alarm.error());
    answer(each([&](AlarmSink& sink) { return sink.deliver(*alarm); }));
  }

  /// All of them, whatever one says. The first error.
  template <typename Do>
  Result<void> each(Do act) {
    Result<void> first;
    for (const auto& sink : sinks_) {
      auto done = act(*sink);
      if (!done && first) first = std::move(done);
    }
    return first;
  }

  void answer(const Result<void>& done) {
    std::uint64_t lost = 0;
    for (const auto& sink : sinks_) lost += sink->lost();
    const Json message = {{"lost", lost}, {"error", done ? Json() : to_json(done.error())}};
    const auto frame = frame_of(message);
    static_cast<void>(send_all(socket_, std::as_bytes(std::span(frame))));
  }

  int socket_;
  std::vector<std::unique_ptr<AlarmSink>> sinks_;
  std::vector<std::uint8_t> came_;
};

[[noreturn]] void become_sink_process(int socket, const OpenSinks& open) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGPIPE}) ::signal(signal, SIG_IGN);
  ::prctl(PR_SET_NAME, "vmsight-alarms");
  try {
    SinkProcess(socket).run(open);
  } catch (const std::exception& failed) {
    fmt::print(stderr, "vmsight: error: deliver alarms: {}\n", failed.what());
  }
  ::_exit(0);
}

// ---- our side ----------------------------------------------------------------------------------

/// Questions to that process, one after the other, of several threads.
class SinkLine {
 public:
  explicit SinkLine(UniqueFd socket) : socket_(std::move(socket)) {}

  /// Waits until the process has done it, well or badly, `stop` can be read, or the time is over.
  Result<void> ask(const Json& message, int stop, std::optional<Clock::duration> patience) {
    const std::lock_guard lock(mutex_);
    if (broken_) return ended();
    const auto deadline = patience ? std::optional(Clock::now() + *patience) : std::nullopt;
    broken_ = true;  // unless the answer is taken whole
    const std::vector<std::uint8_t> frame = frame_of(message);
    std::span<const std::uint8_t> left(frame);
    while (!left.empty()) {
      VMSIGHT_TRY_VOID(wait(POLLOUT, stop, deadline));
      const ssize_t sent =
          ::send(socket_.get(), left.data(), left.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno != EAGAIN && errno != EINTR) return ended();
      if (sent > 0) left = left.subspan(static_cast<std::size_t>(sent));
    }
    VMSIGHT_TRY(const Json answer, receive(stop, deadline));
    broken_ = false;
    lost_ = answer.value("lost", std::uint64_t{0});
    if (auto error = error_of(answer)) {
      const std::lock_guard keeping(error_mutex_);
      error_ = std::move(error);
    }
    return {};
  }
  /// What a sink there has said, once. Does not wait for a question that is under way.
  Result<void> take_error() {
    const std::lock_guard lock(error_mutex_);
    if (!error_) return {};
    return *std::exchange(error_, std::nullopt);
  }
  /// Of alarms that the process got.
  std::uint64_t lost() const { return lost_; }

 private:
  static Error ended() {
    return {.code = ErrorCode::os, .message = "deliver alarms: the process that does it has ended"};
  }

  Result<Json> receive(int stop, std::optional<Clock::time_point> deadline) {
    while (true) {
      VMSIGHT_TRY(auto message, take_message(came_));
      if (message) return *std::move(message);
      VMSIGHT_TRY_VOID(wait(POLLIN, stop, deadline));
      std::uint8_t piece[4096];
      const ssize_t got = ::recv(socket_.get(), piece, sizeof piece, MSG_DONTWAIT);
      if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return ended();
      if (got > 0) came_.insert(came_.end(), piece, piece + got);
    }
  }

  Result<void> wait(short events, int stop, std::optional<Clock::time_point> deadline) const {
    pollfd wanted[] = {{.fd = socket_.get(), .events = events, .revents = 0},
                       {.fd = stop, .events = POLLIN, .revents = 0}};
    int timeout = -1;
    if (deadline) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now());
      timeout = std::max<int>(0, static_cast<int>(left.count()));
    }
    const int ready = ::poll(wanted, std::size(wanted), timeout);
    if (ready < 0 && errno == EINTR) return {};
    if (ready > 0 && wanted[1].revents == 0) return {};
    return Error{.code = ErrorCode::timeout,
                 .message = "deliver alarms: they could not be sent in time"};
  }

  UniqueFd socket_;
  std::mutex mutex_;  // held while a question is under way
  std::vector<std::uint8_t> came_;
  std::mutex error_mutex_;
  std::optional<Error> error_;
  bool broken_ = false;
  std::atomic<std::uint64_t> lost_ = 0;
};

class ProcessSink final : public AlarmSink {
 public:
  ProcessSink(pid_t pid, UniqueFd process, std::shared_ptr<SinkLine> line,
              std::unique_ptr<AlarmSink> queue)
      : pid_(pid), process_(std::move(process)), line_(std::move(line)), queue_(std::move(queue)) {}
  ProcessSink(const ProcessSink&) = delete;
  ProcessSink& operator=(const ProcessSink&) = delete;
  /// What it has begun it ends by itself, however long that takes.
  ~ProcessSink() override {
    constexpr int end_time_ms = 500;
    queue_.reset();
    line_.reset();
    pollfd event{.fd = process_.get(), .events = POLLIN, .revents = 0};
    if (!process_ || ::poll(&event, 1, end_time_ms) > 0) ::waitpid(pid_, nullptr, WNOHANG);
  }

  Result<void> deliver(const Alarm& alarm) override { return and_said(queue_->deliver(alarm)); }
  Result<void> flush() override {
    VMSIGHT_TRY_VOID(queue_->flush());  // else a question may be under way, which nobody answers
    return and_said(line_->ask({{"do", "flush"}}, -1, flush_limit));
  }
  Result<void> reopen() override {
    return and_said(line_->ask({{"do", "reopen"}}, -1, reopen_limit));
  }
  std::uint64_t lost() const override { return queue_->lost() + line_->lost(); }

 private:
  Result<void> and_said(Result<void> done) { return done ? line_->take_error() : std::move(done); }

  static constexpr auto flush_limit = 15s, reopen_limit = 2s;
  pid_t pid_;
  UniqueFd process_;
  std::shared_ptr<SinkLine> line_;
  std::unique_ptr<AlarmSink> queue_;
};

}  // namespace

Result<std::unique_ptr<AlarmSink>> open_process_sink(const OpenSinks& open) {
  constexpr const char* action = "start the process that delivers alarms";
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return os_error(errno, action);
  }
  UniqueFd ours(ends[0]), theirs(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return os_error(errno, action);
  if (pid == 0) {
    ours.reset();
    become_sink_process(theirs.get(), open);
  }
  theirs.reset();
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const auto line = std::make_shared<SinkLine>(std::move(ours));
  VMSIGHT_TRY(
      auto queue,
      make_background_sink(
          {.name = "deliver alarms", .threads = 1, .waiting = 1024, .batch = 1, .flush_limit = 10s},
          [line](std::span<const Alarm> alarms, int stop) {
            return line->ask({{"do", "deliver"}, {"alarm", pack_alarm(alarms.front())}}, stop,
                             std::nullopt);
          }));
  auto sink = std::make_unique<ProcessSink>(pid, std::move(process), line, std::move(queue));
  VMSIGHT_TRY_VOID(line->ask({{"do", "open"}}, -1, std::nullopt));
  VMSIGHT_TRY_VOID(line->take_error());
  return std::unique_ptr<AlarmSink>(std::move(sink));
}

}  // namespace vmsight::detect
