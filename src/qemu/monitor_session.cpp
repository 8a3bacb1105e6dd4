#include "qemu/monitor_session.h"

#include <poll.h>
#include <sys/socket.h>
#include <array>
#include <cerrno>
#include <map>
#include <utility>

#include "qemu/monitor_questions.h"

namespace vmsight {
namespace {

/// Sessions of this process, by the identity of the QEMU process.
struct Sessions {
  std::mutex mutex;
  std::map<std::pair<pid_t, std::uint64_t>, std::weak_ptr<MonitorSession>> open;
};

Sessions& sessions() {
  static Sessions all;
  return all;
}

}  // namespace

Result<std::shared_ptr<MonitorSession>> MonitorSession::of(const VmInfo& info) {
  Sessions& all = sessions();
  const std::lock_guard lock(all.mutex);
  std::erase_if(all.open, [](const auto& entry) { return entry.second.expired(); });
  auto& known = all.open[{info.pid, info.start_time}];
  if (auto session = known.lock(); session && !session->broken()) return session;
  VMSIGHT_TRY(QmpClient client, connect_monitor(info));
  auto session =
      std::make_shared<MonitorSession>(ProcessId{info.pid, info.start_time}, std::move(client));
  known = session;
  return session;
}

bool MonitorSession::is_open(const VmInfo& info) {
  Sessions& all = sessions();
  const std::lock_guard lock(all.mutex);
  const auto known = all.open.find({info.pid, info.start_time});
  return known != all.open.end() && !known->second.expired();
}

Result<void> MonitorSession::keep_only_halts(std::chrono::milliseconds longest) {
  const std::lock_guard lock(mutex_);
  if (only_halts_) return {};
  VMSIGHT_TRY_VOID(start_guard());
  VMSIGHT_TRY([[maybe_unused]] const std::uint64_t done,
              guard_->ask(GuardRequest::only_halts, static_cast<std::uint64_t>(longest.count())));
  client_.replace_socket({});
  only_halts_ = true;
  return {};
}

bool MonitorSession::broken() {
  const std::lock_guard lock(mutex_);
  return client_.broken();
}

Result<std::vector<nlohmann::json>> MonitorSession::execute_all(std::span<const Command> commands,
                                                                Milliseconds patience) {
  const std::lock_guard lock(mutex_);
  return client_.execute_all(commands, patience);
}

Result<nlohmann::json> MonitorSession::execute(Command command, Milliseconds patience) {
  const std::lock_guard lock(mutex_);
  return client_.execute(std::move(command), patience);
}

std::vector<QmpClient::Event> MonitorSession::take_events() {
  const std::lock_guard lock(mutex_);
  return client_.take_events();
}

Result<QmpClient::Event> MonitorSession::wait_event(std::string_view name, Milliseconds patience) {
  const std::lock_guard lock(mutex_);
  return client_.wait_event(name, patience);
}

Result<std::uint64_t> MonitorSession::resets() {
  const std::lock_guard lock(mutex_);
  return client_.resets();
}

Result<std::string> MonitorSession::human(std::string command_line, Milliseconds patience) {
  VMSIGHT_TRY(const auto answer, execute(QmpClient::human(std::move(command_line)), patience));
  return human_text(answer);
}

/// The guard gets the connection, and we a relay to it.
Result<void> MonitorSession::start_guard() {
  if (guard_) return {};
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0) {
    return os_error(errno, "make a socket pair");
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  UniqueFd monitor = client_.replace_socket(std::move(ours));
  auto guard = Guard::start(vm_, {.service = "monitor",
                                  .config = nlohmann::json::object(),
                                  .descriptors = {monitor.get(), theirs.get()}});
  if (guard) {
    guard_ = *std::move(guard);
    return {};
  }
  client_.replace_socket(std::move(monitor));
  return std::move(guard).error();
}

Result<std::uint64_t> MonitorSession::ask(GuardRequest request, std::uint64_t argument) {
  const std::lock_guard lock(mutex_);
  VMSIGHT_TRY_VOID(start_guard());
  return guard_->ask(request, argument);
}

Result<std::uint64_t> MonitorSession::ask(GuardRequest request, const nlohmann::json& payload) {
  const std::lock_guard lock(mutex_);
  VMSIGHT_TRY_VOID(start_guard());
  return guard_->ask(request, payload);
}

Result<void> MonitorSession::arm(const Change& change, std::chrono::milliseconds max_halt) {
  const auto armed =
      ask(GuardRequest::arm,
          {{"kind", change.kind}, {"payload", change.payload}, {"lease_ms", max_halt.count()}});
  return armed ? Result<void>() : armed.error();
}

Result<void> MonitorSession::disarm() {
  const auto done = ask(GuardRequest::disarm);
  return done ? Result<void>() : done.error();
}

Error explain_failure(const Vm& vm, Error error) {
  // A process that ends closes its sockets some time before it is gone.
  constexpr int attempts = 100;
  for (int i = 0; i < attempts; ++i) {
    if (auto alive = vm.check_alive(); !alive) return std::move(alive).error();
    if (error.code != ErrorCode::os) break;
    ::poll(nullptr, 0, 5);
  }
  return error;
}

}  // namespace vmsight
