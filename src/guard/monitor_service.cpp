// Holds the connection to QEMU's monitor, halts the guest by it, and sees that it runs again.
// Descriptors: the QMP socket, and the relay to the owner.
//
//   halt, resume   stop and cont, under a lease; a guest that stands already is left so
//   arm            payload: {kind, payload, lease_ms}. The owner is about to change settings of
//                  QEMU, or to stop the guest by other means: when the guest has been standing for
//                  longer than the lease, or the owner is gone, the change is undone
//   disarm         all is as it was
//   hold           argument 1: the owner makes a gdbstub stop the guest. timeout if a lease ran out
//   only_halts     argument: the longest lease. The owner is about to read the guest's memory: the relay ends, and nothing
//                  but halt and resume is done
//   pause          payload: {by, time}. Stops the guest for good, and leaves a record of who wanted it
//   write, revert  as the patch service does, while the guest is halted
#include <algorithm>
#include <array>

#include "guard/change_kinds.h"
#include "guard/leased_halt.h"
#include "guard/qmp_relay.h"
#include "guard/service.h"
#include "probe/patch/code_patch.h"
#include "qemu/monitor_questions.h"
#include "qemu/run_state.h"
#include "undo/journal.h"

namespace vmsight {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr auto own_patience = 5000ms;

/// States that QEMU leaves only if it is told to. (QMP RunState; of the others "suspended" ends with
/// an interrupt, and "save-vm", "finish-migrate", "inmigrate" and the like end by themselves.)
constexpr std::array<std::string_view, 9> stands = {
    "debug",     "guest-panicked", "internal-error", "io-error", "paused",
    "prelaunch", "postmigrate",    "shutdown",       "watchdog"};

template <std::size_t N>
bool contains(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// What the owner may give besides questions (query-*, qom-list, qom-get).
constexpr std::array<std::string_view, 13> commands = {"pmemsave",
                                                       "dump-guest-memory",
                                                       "migrate",
                                                       "migrate_cancel",
                                                       "migrate-set-capabilities",
                                                       "migrate-set-parameters",
                                                       "getfd",
                                                       "closefd",
                                                       "add-fd",
                                                       "remove-fd",
                                                       "cont",
                                                       "qom-list",
                                                       "qom-get"};
constexpr std::array<std::string_view, 4> human_commands = {"info", "xp", "gpa2hva", "gdbserver"};

class MonitorService final : public Service {
 public:
  MonitorService(ServiceSetup setup, QmpRelay relay, JournalEntry entry)
      : setup_(std::move(setup)), relay_(std::move(relay)), halted_entry_(std::move(entry)) {
    relay_.set([this](std::string_view name) { on_event(name); },
               [this](const json& command) { return allows(command); });
  }

  Result<std::uint64_t> serve(const GuardQuestion& question) override;
  void watch(std::vector<pollfd>& events) const override { relay_.watch(events); }
  Result<void> on_events() override { return relay_.pump(); }
  std::optional<GuardClock::time_point> deadline() const override;
  void on_deadline() override;
  void end() override;

 private:
  struct Armed {
    Change change;
    JournalEntry entry;
    std::chrono::milliseconds lease;
    std::optional<GuardClock::time_point> stands_since;
    bool is_held = false;  // the owner stops it itself, if it is stopped
  };

  Result<std::uint64_t> halt(std::chrono::milliseconds lease);
  Result<std::uint64_t> resume();
  Result<void> cont();
  Result<std::uint64_t> pause(const json& payload);
  Result<std::uint64_t> arm(const json& payload);
  Result<std::uint64_t> disarm();
  Result<void> check_halted() const;
  Result<std::string> run_state();
  void on_event(std::string_view name);
  bool allows(const json& command) const;
  bool stands_by_us();
  void undo_armed();

  ServiceSetup setup_;
  QmpRelay relay_;
  JournalEntry halted_entry_;
  std::chrono::milliseconds lease_{};
  std::optional<GuardClock::time_point> halted_until_;  // while the guest is halted by us
  Stopwatch halted_;
  bool only_halts_ = false;
  std::uint64_t longest_ms_ = longest_lease_ms;
  bool stood_already_ = false;  // halted by somebody else before
  std::optional<Armed> armed_;
  std::optional<std::chrono::milliseconds> ran_out_;  // a lease of this length
};

Result<std::uint64_t> MonitorService::serve(const GuardQuestion& question) {
  const bool is_halt =
      question.request == GuardRequest::halt || question.request == GuardRequest::resume;
  if (only_halts_ && !is_halt) return unknown_request();
  switch (question.request) {
    case GuardRequest::halt: {
      VMSIGHT_TRY(const auto lease, parse_lease(question.argument, longest_ms_));
      return halt(lease);
    }
    case GuardRequest::resume:
      return resume();
    case GuardRequest::arm:
      return arm(question.payload);
    case GuardRequest::disarm:
      return disarm();
    case GuardRequest::hold:
      if (ran_out_) return lease_ran_out(*ran_out_);
      if (armed_) armed_->is_held = question.argument != 0;
      return std::uint64_t{0};
    case GuardRequest::only_halts:
      if (armed_) return unknown_request();
      relay_.cut_off();
      only_halts_ = true;
      longest_ms_ = question.argument;
      return std::uint64_t{0};
    case GuardRequest::pause:
      return pause(question.payload);
    case GuardRequest::write:
    case GuardRequest::revert:
      VMSIGHT_TRY_VOID(check_halted());
      VMSIGHT_TRY_VOID(change_code(setup_.vm.pid, question.request, question.payload));
      return std::uint64_t{0};
    default:
      return unknown_request();
  }
}

Result<std::string> MonitorService::run_state() {
  VMSIGHT_TRY(const json answer, relay_.execute({"query-status"}, own_patience));
  return parse_run_state(answer);
}

Result<std::uint64_t> MonitorService::halt(std::chrono::milliseconds lease) {
  if (halted_until_ || stood_already_) {
    return Error{.code = ErrorCode::usage, .message = "halt the guest: it is halted already"};
  }
  if (!relay_.is_open()) return lease_ran_out(ran_out_.value_or(lease));
  ran_out_.reset();
  VMSIGHT_TRY(const std::string state, run_state());
  if (state != "running") {
    stood_already_ = contains(stands, state);
    if (stood_already_) return std::uint64_t{0};
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("stop the guest: its state is \"{}\"", state),
                 .hint = "try again when it runs"};
  }
  VMSIGHT_TRY_VOID(halted_entry_.write());
  lease_ = lease;
  halted_until_ = GuardClock::now() + lease;
  halted_ = Stopwatch();
  auto stopped = relay_.execute({"stop"}, own_patience);
  if (stopped) return std::uint64_t{1};
  static_cast<void>(cont());  // it may have got the command and only been slow to answer
  return std::move(stopped).error();
}

Result<std::uint64_t> MonitorService::resume() {
  if (std::exchange(stood_already_, false)) return std::uint64_t{0};
  if (ran_out_) return lease_ran_out(*std::exchange(ran_out_, std::nullopt));
  if (!halted_until_) return std::uint64_t{0};
  VMSIGHT_TRY_VOID(cont());
  return halted_.elapsed_ns();
}

Result<void> MonitorService::cont() {
  auto done = relay_.execute({"cont"}, own_patience);
  if (!done) {
    Error error = std::move(done).error();
    error.hint = "`cont` in QEMU's monitor resumes the guest";
    return error;
  }
  halted_until_.reset();
  return halted_entry_.remove();
}

/// The record stays: it tells who wanted it, also when we are gone.
Result<std::uint64_t> MonitorService::pause(const json& payload) {
  if (halted_until_ || !relay_.is_open()) {
    return Error{.code = ErrorCode::usage, .message = "pause the guest: we hold it ourselves"};
  }
  VMSIGHT_TRY(const std::string state, run_state());
  if (contains(stands, state)) return std::uint64_t{0};
  VMSIGHT_TRY(auto entry,
              JournalEntry::prepare(setup_.vm, make_change(paused_change, payload), setup_.owner));
  VMSIGHT_TRY_VOID(entry.write());
  auto stopped = relay_.execute({"stop"}, own_patience);
  if (stopped) return std::uint64_t{1};
  // It may have got the command and only been slow to answer.
  if (const auto now = run_state(); now && *now == "running") static_cast<void>(entry.remove());
  return std::move(stopped).error();
}

Result<void> MonitorService::check_halted() const {
  if (halted_until_ || stood_already_) return {};
  if (ran_out_) return lease_ran_out(*ran_out_);
  return Error{.code = ErrorCode::usage, .message = "change the guest: it is not halted"};
}

Result<std::uint64_t> MonitorService::arm(const json& payload) {
  const json kind = payload.is_object() ? payload.value("kind", json()) : json();
  if (!kind.is_string() || armed_ || !relay_.is_open()) return unknown_request();
  const json lease = payload.value("lease_ms", json());
  VMSIGHT_TRY(const auto parsed,
              parse_lease(lease.is_number_unsigned() ? lease.get<std::uint64_t>() : 0));
  ran_out_.reset();
  VMSIGHT_TRY(auto change, change_of_kind(kind.get_ref<const std::string&>(),
                                          payload.value("payload", json::object())));
  Armed armed{.change = std::move(change), .entry = {}, .lease = parsed, .stands_since = {}};
  VMSIGHT_TRY(armed.entry, JournalEntry::prepare(setup_.vm, armed.change, setup_.owner));
  VMSIGHT_TRY_VOID(armed.entry.write());
  armed_ = std::move(armed);
  return std::uint64_t{0};
}

Result<std::uint64_t> MonitorService::disarm() {
  if (ran_out_) return lease_ran_out(*std::exchange(ran_out_, std::nullopt));
  if (!armed_) return std::uint64_t{0};
  VMSIGHT_TRY_VOID(armed_->entry.remove());
  armed_.reset();
  return std::uint64_t{0};
}

void MonitorService::on_event(std::string_view name) {
  if (!armed_) return;
  if (name == "STOP" && !armed_->stands_since) armed_->stands_since = GuardClock::now();
  if (name == "RESUME") armed_->stands_since.reset();
}

bool MonitorService::allows(const json& command) const {
  const json name = command.value("execute", json());
  if (!name.is_string()) return false;
  const std::string& text = name.get_ref<const std::string&>();
  if (text.starts_with("query-") || contains(commands, text)) return true;
  if (text == "stop") return armed_.has_value();
  if (text != "human-monitor-command") return false;
  const json arguments = command.value("arguments", json::object());
  const json line = arguments.is_object() ? arguments.value("command-line", json()) : json();
  if (!line.is_string()) return false;
  const std::string& words = line.get_ref<const std::string&>();
  return contains(human_commands, std::string_view(words).substr(0, words.find(' ')));
}

std::optional<GuardClock::time_point> MonitorService::deadline() const {
  auto first = halted_until_;
  if (armed_ && armed_->stands_since) {
    const auto end = *armed_->stands_since + armed_->lease;
    first = first ? std::min(*first, end) : end;
  }
  return first;
}

void MonitorService::on_deadline() {
  const auto now = GuardClock::now();
  if (halted_until_ && now >= *halted_until_) {
    ran_out_ = lease_;
    // What QEMU does not take now it is told again.
    if (!cont()) halted_until_ = now + 100ms;
  }
  if (!armed_ || !armed_->stands_since || now < *armed_->stands_since + armed_->lease) return;
  if (!stands_by_us()) {
    armed_->stands_since.reset();
    return;
  }
  ran_out_ = armed_->lease;
  undo_armed();
}

/// Somebody else may stop the guest too while probes are armed in it.
bool MonitorService::stands_by_us() {
  const auto state = run_state();
  if (!state || *state == "running") return !state;
  return armed_->is_held || stands_by(armed_->change, *state);
}

/// The owner is cut off from the monitor: half done as its work is, it cannot go on.
void MonitorService::undo_armed() {
  bool undone = false;
  if (auto monitor = relay_.take()) {
    undone = undo_by_monitor(*monitor, setup_.vm, armed_->change).has_value();
  }
  undone = undone || undo_persistently(setup_.vm, armed_->change);  // by a connection of its own
  if (undone) static_cast<void>(armed_->entry.remove());
  armed_.reset();
}

void MonitorService::end() {
  if (armed_) {
    if (halted_until_) static_cast<void>(cont());
    return undo_armed();
  }
  constexpr int attempts = 10;
  for (int i = 0; halted_until_ && i < attempts; ++i) {
    if (cont()) return;
    // A QEMU that dies closes its monitor before it has ended.
    if (!has_ended(setup_.vm, 200)) continue;
    static_cast<void>(halted_entry_.remove());  // there is nothing to resume
    return;
  }
}

}  // namespace

Result<std::unique_ptr<Service>> make_monitor_service(ServiceSetup&& setup) {
  if (setup.descriptors.size() < 2) return unknown_request();
  QmpRelay relay(std::move(setup.descriptors[0]), std::move(setup.descriptors[1]));
  VMSIGHT_TRY(auto entry,
              JournalEntry::prepare(setup.vm, make_change(stopped_change), setup.owner));
  return std::unique_ptr<Service>(
      std::make_unique<MonitorService>(std::move(setup), std::move(relay), std::move(entry)));
}

}  // namespace vmsight
