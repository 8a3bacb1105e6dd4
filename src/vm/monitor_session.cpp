#include "vm/monitor_session.h"

#include <poll.h>
#include <map>
#include <utility>

#include "vm/monitor.h"

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
  auto session = std::make_shared<MonitorSession>(std::move(client));
  known = session;
  return session;
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

Result<std::string> MonitorSession::human(std::string command_line, Milliseconds patience) {
  VMSIGHT_TRY(const auto answer, execute(QmpClient::human(std::move(command_line)), patience));
  return human_text(answer);
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
