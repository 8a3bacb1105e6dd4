// The engine for any QEMU: breakpoints of its gdbstub, which is started through the monitor for as
// long as probes are armed, and ended with the last of them.
#include <fmt/format.h>
#include <poll.h>
#include <algorithm>
#include <cerrno>

#include "probe/engine.h"
#include "probe/gdb_loop.h"
#include "qemu/gdb_stub.h"
#include "qemu/monitor_questions.h"
#include "qemu/monitor_session.h"
#include "qemu/run_state.h"

namespace vmsight {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t debug_registers = 4;  // of an x86 CPU: what KVM lends its guests' debuggers
constexpr std::uint64_t event_interval_ns = 250'000'000;
constexpr std::size_t max_hits_a_poll = 256;

bool has_real_cpus(const VmInfo& vm) { return vm.accelerator == Accelerator::kvm; }

EngineAbilities abilities_of(const VmInfo& vm) {
  return {.name = "gdbstub",
          .any_instruction = true,
          .user_sites = true,
          .return_sites = true,
          .stops_guest = true,
          .refuses_calls = true,
          .max_sites = has_real_cpus(vm) ? debug_registers : 0};
}

GdbLoop::Options options_for(const EngineSetting& setting) {
  const bool real = has_real_cpus(setting.vm.info());
  return {.kind = real ? GdbTraps::Kind::hardware : GdbTraps::Kind::software,
          .skips_endbr = !real,  // an emulated CPU tracks no indirect branches
          .max_traps = abilities_of(setting.vm.info()).max_sites,
          .refresh = !setting.memory.nature().direct};
}

class GdbstubEngine final : public ProbeEngine {
 public:
  GdbstubEngine(const EngineSetting& setting, CurrentTask current, std::unique_ptr<GdbStub> stub,
                std::shared_ptr<MonitorSession> session)
      : setting_(setting),
        reader_(setting.memory, setting.kernel.space()),
        current_(std::move(current)),
        stub_(std::move(stub)),
        session_(std::move(session)),
        loop_(reader_, current_, options_for(setting)) {}

  ~GdbstubEngine() override { static_cast<void>(let_go()); }

  EngineAbilities abilities() const override { return abilities_of(setting_.vm.info()); }

  /// QEMU says what it refuses only when it is told to set the breakpoints.
  Result<void> check(const ProbeOrder&) override { return {}; }

  Result<void> arm(std::span<const ProbeOrder> orders) override {
    VMSIGHT_TRY_VOID(hold());
    auto armed = loop_.arm(*stub_->client(), orders);
    auto ran = run_on();
    return armed ? std::move(ran) : std::move(armed);
  }

  Result<void> disarm(std::span<const ProbeId> ids) override {
    if (!holds_stub()) return {};
    VMSIGHT_TRY_VOID(hold());
    auto disarmed = loop_.disarm(*stub_->client(), ids);
    auto ran = run_on();
    return disarmed ? std::move(ran) : std::move(disarmed);
  }

  /// Breakpoints are outside of the guest's memory: whatever is there now, they go.
  Result<void> forget(std::span<const ProbeId> ids) override { return disarm(ids); }

  /// A breakpoint is at an address of processes; their file makes no difference.
  Result<void> follow(ProbeId id, const ProbeSite& now) override {
    if (!holds_stub()) return {};
    GdbClient& client = *stub_->client();
    if (!loop_.needs_stop(id, now.places)) return loop_.set_places(client, id, now.places);
    VMSIGHT_TRY_VOID(hold());
    auto set = loop_.set_places(client, id, now.places);
    auto ran = run_on();
    return set ? std::move(ran) : std::move(set);
  }

  Result<std::size_t> poll(std::chrono::milliseconds patience, const Sink& sink) override {
    std::size_t told = 0;
    VMSIGHT_TRY_VOID(look_at_events());
    if (!holds_stub()) {
      ::poll(nullptr, 0, static_cast<int>(patience.count()));
      return told;
    }
    for (std::size_t hits = 0; hits < max_hits_a_poll; ++hits) {
      auto stop = stub_->client()->wait_stop(hits == 0 ? patience : 0ms);
      if (!stop) return stub_->explain(std::move(stop).error());
      if (!*stop) break;
      auto after = loop_.handle(*stub_->client(), **stop, sink, told);
      if (!after) return stub_->explain(std::move(after).error());
      stopped_by_other_ = *after == GdbLoop::After::stands;
    }
    return told;
  }

  /// The guest waits at each hit, so that few can have come.
  void drain(const Sink& sink) override {
    constexpr int rounds = 64;
    for (int i = 0; i < rounds; ++i) {
      const auto told = poll(0ms, sink);
      if (!told || *told == 0) return;
    }
  }

  Result<ProbeCounts> counts(ProbeId id) override { return loop_.counts(id); }
  std::uint64_t foreign() const override { return loop_.foreign(); }
  std::uint64_t late() const override { return 0; }  // the guest stands until a hit is told

 private:
  /// Not after the guard has ended it, either: nothing is armed any more then.
  bool holds_stub() { return static_cast<bool>(paused_) && stub_->client() != nullptr; }

  /// The guest stands when this returns, by us.
  Result<void> hold() {
    if (!paused_) {
      VMSIGHT_TRY(const std::string state, session_->with_client(&ask_run_state));
      if (state != "running") {
        return Error{.code = ErrorCode::unsupported,
                     .message = fmt::format("arm probes: the guest does not run ({})", state),
                     .hint = "resume it first"};
      }
      VMSIGHT_TRY(paused_, stub_->halt());
      return {};
    }
    if (!holds_stub()) return stub_->explain(os_error(EPIPE, "use the gdbstub"));
    VMSIGHT_TRY_VOID(look_whether_it_runs());
    if (!stub_->client()->is_running()) return {};
    // A breakpoint that is hit at this moment is hit again when the guest runs on.
    VMSIGHT_TRY_VOID(stub_->announce_hold(true));
    auto stopped = stub_->client()->interrupt();
    return stopped ? Result<void>() : stub_->explain(std::move(stopped).error());
  }

  /// After hold(): on with the guest, and without a gdbstub if nothing is armed any more.
  Result<void> run_on() {
    if (loop_.is_idle()) return let_go();
    if (stopped_by_other_) return {};
    VMSIGHT_TRY_VOID(stub_->client()->run({}));
    return stub_->announce_hold(false);
  }

  Result<void> let_go() {
    if (!paused_) return {};
    if (!holds_stub()) return resume();
    auto known = look_whether_it_runs();
    if (std::exchange(stopped_by_other_, false) && known && loop_.disarm_all(*stub_->client())) {
      stub_->leave_standing();
    }
    return resume();
  }

  Result<void> resume() {
    VMSIGHT_TRY_VOID(paused_.resume());
    return {};
  }

  /// One whom we saw stop the guest may have resumed it: the gdbstub does not tell that.
  Result<void> look_whether_it_runs() {
    if (!stopped_by_other_) return {};
    VMSIGHT_TRY(const std::string state, session_->with_client(&ask_run_state));
    if (state != "running") return {};
    stopped_by_other_ = false;
    stub_->client()->runs_again();
    return {};
  }

  /// A reset leaves breakpoints at addresses of a kernel that is gone. Reading events also keeps
  /// QEMU from storing what it tells of every stop.
  Result<void> look_at_events() {
    const std::uint64_t now = monotonic_ns();
    if (now - looked_ns_ < event_interval_ns) return {};
    looked_ns_ = now;
    const auto reset = session_->wait_event("RESET", 0ms);
    if (reset) {
      return Error{.code = ErrorCode::vm_gone,
                   .message = "the guest was reset",
                   .hint = "begin anew when it is up"};
    }
    if (reset.error().code == ErrorCode::timeout) return {};
    return explain_failure(setting_.vm, reset.error());
  }

  EngineSetting setting_;
  Reader reader_;
  CurrentTask current_;
  std::unique_ptr<GdbStub> stub_;
  std::shared_ptr<MonitorSession> session_;
  GdbLoop loop_;
  Paused paused_;  // the stub is started
  bool stopped_by_other_ = false;
  std::uint64_t looked_ns_ = 0;
};

Result<void> check_vm(const VmInfo& vm) {
  VMSIGHT_TRY(const auto session, MonitorSession::of(vm));
  return {};
}

Result<std::unique_ptr<ProbeEngine>> open_for(const EngineSetting& setting) {
  if (setting.blind != EngineSetting::Blind::not_at_all) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "engine gdbstub: it sees every breakpoint that it has set"};
  }
  VMSIGHT_TRY(CurrentTask current, CurrentTask::resolve(setting.kernel));
  VMSIGHT_TRY(auto session, MonitorSession::of(setting.vm.info()));
  VMSIGHT_TRY(auto stub, GdbStub::open(setting.vm, GdbStub::Use::breakpoints, setting.max_halt));
  return std::unique_ptr<ProbeEngine>(std::make_unique<GdbstubEngine>(
      setting, std::move(current), std::move(stub), std::move(session)));
}

}  // namespace

const EngineInfo gdbstub_engine{
    .name = "gdbstub",
    .what = "any instruction, by breakpoints of QEMU's gdbstub",
    .cost = "the guest stands at each hit, some milliseconds",
    .abilities = abilities_of,
    .check = check_vm,
    .open = open_for,
};

}  // namespace vmsight
