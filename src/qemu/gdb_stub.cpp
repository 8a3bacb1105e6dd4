#include "qemu/gdb_stub.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>

#include "qemu/monitor_questions.h"
#include "qemu/run_state.h"
#include "qemu/undo_by_monitor.h"

namespace vmsight {
namespace {

constexpr std::string_view our_prefix = "vmsight-gdb-";
constexpr int connect_time_ms = 2000;

Result<UniqueFd> listen_on(const std::string& name) {
  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener) return os_error(errno, "make a socket");
  sockaddr_un address{.sun_family = AF_UNIX};
  name.copy(address.sun_path + 1, sizeof address.sun_path - 1);  // the first byte 0: abstract
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::listen(listener.get(), 1) != 0) {
    return os_error(errno, "listen for the gdbstub");
  }
  return listener;
}

Result<UniqueFd> accept_from(int listener, pid_t pid) {
  pollfd event{.fd = listener, .events = POLLIN, .revents = 0};
  if (::poll(&event, 1, connect_time_ms) <= 0) {
    return Error{.code = ErrorCode::timeout,
                 .message = "start the gdbstub: QEMU does not connect to us"};
  }
  UniqueFd stub(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (!stub) return os_error(errno, "start the gdbstub");
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(stub.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.pid != pid) {
    return Error{.code = ErrorCode::permission,
                 .message = fmt::format("start the gdbstub: process {} connected to us", peer.pid)};
  }
  return stub;
}

std::string fresh_name() {
  std::random_device random;
  return fmt::format("{}{:08x}{:08x}", our_prefix, random(), random());
}

Result<void> tell(QmpClient& monitor, std::string command) {
  VMSIGHT_TRY(const auto said, monitor.execute(QmpClient::human(std::move(command))));
  static_cast<void>(said);
  return {};
}

/// QEMU keeps the breakpoints of a client that is gone; only a client that detaches removes them.
Result<void> remove_breakpoints(QmpClient& monitor, pid_t pid) {
  const std::string name = fresh_name();
  VMSIGHT_TRY(const UniqueFd listener, listen_on(name));
  VMSIGHT_TRY_VOID(tell(monitor, fmt::format("gdbserver unix:{},abstract=on", name)));
  VMSIGHT_TRY(UniqueFd socket, accept_from(listener.get(), pid));
  VMSIGHT_TRY(GdbClient client, GdbClient::negotiate(std::move(socket)));
  return client.detach();
}

Result<void> undo_gdbstub(QmpClient& monitor, const ProcessId& vm, const nlohmann::json& payload) {
  VMSIGHT_TRY_VOID(tell(monitor, "gdbserver none"));
  if (payload.is_object() && payload.value("breakpoints", false)) {
    VMSIGHT_TRY_VOID(remove_breakpoints(monitor, vm.pid));
    VMSIGHT_TRY_VOID(tell(monitor, "gdbserver none"));
  }
  return make_it_run(monitor);
}

}  // namespace

constinit const ChangeKind gdbstub_change{
    .name = "gdbstub",
    .what = "a gdbstub held the guest, or had breakpoints in it",
    .undo = by_own_connection<undo_gdbstub>,
    .undo_by_monitor = undo_gdbstub,
    .stands_in = "debug"};

Result<std::unique_ptr<GdbStub>> GdbStub::open(const Vm& vm, Use use,
                                               std::chrono::milliseconds max_halt) {
  std::unique_ptr<GdbStub> stub(new GdbStub(vm, max_halt));
  VMSIGHT_TRY(stub->session_, MonitorSession::of(vm.info()));
  VMSIGHT_TRY_VOID(stub->check_unused());
  stub->change_ = make_change(gdbstub_change);
  if (use == Use::breakpoints) stub->change_.payload["breakpoints"] = true;
  return stub;
}

/// QEMU has one gdbstub: starting ours would end another's. One that we left when we were killed
/// is ours to replace.
Result<void> GdbStub::check_unused() {
  VMSIGHT_TRY(const nlohmann::json all, session_->execute({"query-chardev"}));
  if (!all.is_array()) return {};
  for (const nlohmann::json& device : all) {
    if (!device.is_object() || device.value("label", nlohmann::json()) != "gdb") continue;
    const nlohmann::json file = device.value("filename", nlohmann::json());
    if (file.is_string() && file.get<std::string>().find(our_prefix) != std::string::npos) continue;
    return Error{.code = ErrorCode::unsupported,
                 .message = "use the gdbstub: this VM has one that is not ours (-gdb or -s)",
                 .hint = "end it with `gdbserver none` in QEMU's monitor"};
  }
  return {};
}

Result<Paused> GdbStub::halt() {
  if (auto ready = prepare(); !ready) return explain_failure(vm_, std::move(ready).error());
  if (auto connected = connect(); !connected) {
    static_cast<void>(let_go());
    return explain_failure(vm_, std::move(connected).error());
  }
  return Paused(*this);
}

Result<void> GdbStub::prepare() {
  VMSIGHT_TRY(const std::string status, session_->with_client(&ask_run_state));
  VMSIGHT_TRY_VOID(check_unused());
  was_running_ = status == "running";
  if (!was_running_) return {};
  VMSIGHT_TRY_VOID(session_->arm(change_, max_halt_));
  return announce_hold(true);
}

Result<void> GdbStub::announce_hold(bool holds) {
  const auto done = session_->ask(GuardRequest::hold, holds ? 1 : 0);
  return done ? Result<void>() : done.error();
}

Error GdbStub::explain(Error error) {
  auto known = was_running_ ? announce_hold(true) : Result<void>();
  if (!known && known.error().code == ErrorCode::timeout) {
    started_ = was_running_ = false;
    client_.reset();
    return std::move(known).error();
  }
  return explain_failure(vm_, std::move(error));
}

Result<void> GdbStub::connect() {
  VMSIGHT_TRY(UniqueFd socket, start());
  VMSIGHT_TRY(client_, GdbClient::negotiate(std::move(socket)));
  return {};
}

Result<UniqueFd> GdbStub::start() {
  const std::string name = fresh_name();
  VMSIGHT_TRY(const UniqueFd listener, listen_on(name));
  VMSIGHT_TRY(const std::string quiet, session_->human("gdbserver none"));  // what we left
  static_cast<void>(quiet);
  started_ = true;
  halted_ = Stopwatch();
  VMSIGHT_TRY(const std::string said,
              session_->human(fmt::format("gdbserver unix:{},abstract=on", name)));
  auto socket = accept_from(listener.get(), vm_.info().pid);
  if (!socket && socket.error().code == ErrorCode::timeout && !said.empty()) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "start the gdbstub: " + said.substr(0, said.find('\n'))};
  }
  return socket;
}

Result<std::uint64_t> GdbStub::resume() {
  const bool stood = !was_running_;
  VMSIGHT_TRY_VOID(let_go());
  return stood ? std::uint64_t{0} : halted_.elapsed_ns();
}

Result<void> GdbStub::let_go() {
  if (!started_) return was_running_ ? session_->disarm() : Result<void>();
  started_ = false;
  // A guest that somebody else had stopped stays stopped: only its connection ends.
  const bool resumes = was_running_ && !std::exchange(leaves_standing_, false);
  const bool detached = resumes && client_ && client_->detach();
  client_.reset();
  std::vector<QmpClient::Command> commands = {QmpClient::human("gdbserver none")};
  if (resumes && !detached) commands.push_back({"cont"});
  auto done = session_->execute_all(commands);
  if (done) return was_running_ ? session_->disarm() : Result<void>();
  Error error = explain(std::move(done).error());
  if (error.code == ErrorCode::vm_gone || error.code == ErrorCode::timeout) return error;
  error.hint = "if the guest stands still, `cont` in QEMU's monitor resumes it";
  return error;
}

}  // namespace vmsight
