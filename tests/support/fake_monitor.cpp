#include "support/fake_monitor.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "host/process.h"

namespace vmsight::test {

using nlohmann::json;

namespace {

std::string fresh_path() {
  static std::atomic<int> number = 0;
  return (std::filesystem::temp_directory_path() /
          fmt::format("vmsight-monitor-{}-{}", ::getpid(), number++))
      .string();
}

/// Held by whoever of us may be inside the allocator. A fork of this process waits for it:
/// AddressSanitizer's allocator, unlike glibc's, leaves a child with locks that another thread
/// held, and it hangs for ever.
std::mutex& fork_gate() {
  static std::mutex gate;
  static const int registered = ::pthread_atfork(
      [] { fork_gate().lock(); }, [] { fork_gate().unlock(); }, [] { fork_gate().unlock(); });
  static_cast<void>(registered);
  return gate;
}

void say(int fd, const std::string& line) {
  const std::string text = line + "\r\n";
  static_cast<void>(::send(fd, text.data(), text.size(), MSG_NOSIGNAL));
}

}  // namespace

FakeMonitor::FakeMonitor() : path_(fresh_path()) {
  listener_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX};
  path_.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_.get(), 4) != 0) {
    std::abort();
  }
  thread_ = std::thread([this] {
    const std::lock_guard gate(fork_gate());
    started_.release();
    serve();
  });
  started_.acquire();
}

FakeMonitor::~FakeMonitor() {
  ::shutdown(listener_.get(), SHUT_RDWR);
  thread_.join();
  ::unlink(path_.c_str());
}

void FakeMonitor::serve() {
  while (true) {
    fork_gate().unlock();
    const UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    fork_gate().lock();
    if (!client) return;
    serve_client(client.get());
  }
}

void FakeMonitor::serve_client(int client) {
  ++served_;
  say(client, R"({"QMP": {}})");
  std::string received;
  char chunk[4096];
  while (true) {
    fork_gate().unlock();
    const ssize_t got = ::recv(client, chunk, sizeof chunk, 0);
    fork_gate().lock();
    if (got <= 0) return;
    received.append(chunk, static_cast<std::size_t>(got));
    for (std::size_t end; (end = received.find('\n')) != std::string::npos;) {
      const std::string line = received.substr(0, end);
      received.erase(0, end + 1);
      const std::string said = answer(line);
      if (said.empty()) return;
      say(client, said);
    }
  }
}

std::string FakeMonitor::answer(const std::string& line) {
  const std::lock_guard lock(mutex_);
  const json command = json::parse(line);
  const std::string name = command["execute"];
  json value = json::object();
  if (name == "human-monitor-command") {
    asked_.push_back(command["arguments"]["command-line"]);
    value = text_;
  } else {
    asked_.push_back(name);
  }
  if (name == refused_) {
    return json{{"id", command["id"]}, {"error", {{"class", "GenericError"}, {"desc", "no"}}}}
        .dump();
  }
  if (name == "quit") return "";
  if (name == "stop") status_ = "paused";
  if (name == "cont") status_ = "running";
  if (name == "query-status") value = {{"status", status_}};
  changed_.notify_all();
  return json{{"id", command["id"]}, {"return", value}}.dump();
}

std::string FakeMonitor::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void FakeMonitor::set_status(std::string status) {
  const std::lock_guard lock(mutex_);
  status_ = std::move(status);
}

void FakeMonitor::set_text(std::string text) {
  const std::lock_guard lock(mutex_);
  text_ = std::move(text);
}

void FakeMonitor::refuse(std::string command) {
  const std::lock_guard lock(mutex_);
  refused_ = std::move(command);
}

bool FakeMonitor::becomes(const std::string& status) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(5), [&] { return status_ == status; });
}

std::vector<std::string> FakeMonitor::asked() const {
  const std::lock_guard lock(mutex_);
  return asked_;
}

MonitoredVm::MonitoredVm(const FakeMonitor& monitor) {
  const ProcessId self = identify(::getpid()).value();
  info_.pid = self.pid;
  info_.start_time = self.start_time;
  info_.qmp_sockets = {monitor.path()};
}

}  // namespace vmsight::test
