#include "qemu/migration.h"

#include <algorithm>
#include <array>
#include <thread>

#include "qemu/monitor_questions.h"
#include "qemu/run_state.h"
#include "qemu/undo_by_monitor.h"

namespace vmsight {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

/// QEMU's own limit of 128 MiB/s would make each migration a second long.
constexpr std::uint64_t bandwidth = 1ULL << 40;

constexpr auto look_again = 2ms;

constexpr const char* descriptor_name = "vmsight";  // of the file, in QEMU

/// What changes the file's format, or does not go with what we need.
constexpr std::array<std::string_view, 12> unwanted = {
    "multifd",          "xbzrle",        "compress",        "postcopy-ram",
    "postcopy-preempt", "release-ram",   "x-ignore-shared", "auto-converge",
    "zero-blocks",      "dirty-bitmaps", "return-path",     "pause-before-switchover"};

bool has_name(std::span<const std::string_view> names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

json capability(const std::string& name, bool state) {
  return {{"capability", name}, {"state", state}};
}

bool is_over(const std::string& status) {
  return status == "completed" || status == "failed" || status == "cancelled";
}

/// Until it has ended, settings cannot be put back and the guest may stop at any time.
///
/// A background snapshot must never be cancelled. Its thread, which alone answers the guest's
/// writes to protected pages, ends at once; the protection is taken away later, by QEMU's main
/// loop. A vCPU that writes to such a page in between while it holds QEMU's global lock (under TCG
/// each interrupt does) waits for ever, and the main loop for it (seen on 7.2). So it is let run.
void end(QmpClient& monitor, bool background) {
  const auto deadline = std::chrono::steady_clock::now() + (background ? 120s : 4s);
  if (!background) static_cast<void>(monitor.execute({"migrate_cancel"}));
  while (std::chrono::steady_clock::now() < deadline) {
    const auto info = monitor.execute({"query-migrate"});
    if (!info || !info->is_object()) return;
    const json status = info->value("status", json());
    if (!status.is_string() || is_over(status.get<std::string>())) return;
    std::this_thread::sleep_for(look_again);
  }
}

/// The descriptor of one that was about to begin: QEMU keeps it when its giver has gone.
void forget_descriptor(QmpClient& monitor) {
  static_cast<void>(monitor.execute({"closefd", {{"fdname", descriptor_name}}}));
}

void restore_settings(QmpClient& monitor, const json& capabilities, const json& limit) {
  if (!capabilities.empty()) {
    static_cast<void>(
        monitor.execute({"migrate-set-capabilities", {{"capabilities", capabilities}}}));
  }
  if (!limit.is_number_unsigned()) return;
  static_cast<void>(monitor.execute({"migrate-set-parameters", {{"max-bandwidth", limit}}}));
}

Result<void> undo_migration(QmpClient& monitor, const ProcessId&, const json& payload) {
  const bool is_record = payload.is_object();
  end(monitor, is_record && payload.value("background", json()) == true);
  VMSIGHT_TRY_VOID(make_it_run(monitor));
  forget_descriptor(monitor);
  if (!is_record) return {};
  restore_settings(monitor, payload.value("capabilities", json::array()),
                   payload.value("max-bandwidth", json()));
  return {};
}

}  // namespace

constinit const ChangeKind migration_change{.name = "migration",
                                            .what = "a migration to a file had changed settings",
                                            .undo = by_own_connection<undo_migration>,
                                            .undo_by_monitor = undo_migration};

Result<Migration> Migration::open(const Vm& vm, std::shared_ptr<MonitorSession> session,
                                  MigrationKind kind, std::chrono::milliseconds max_halt) {
  Migration migration(vm, std::move(session), kind, max_halt);
  VMSIGHT_TRY_VOID(migration.learn_capabilities());
  // Only the host knows whether it can write-protect: a capability that is refused says so.
  VMSIGHT_TRY_VOID(migration.set_capabilities(true));
  VMSIGHT_TRY_VOID(migration.set_capabilities(false));
  return migration;
}

Result<void> Migration::learn_capabilities() {
  VMSIGHT_TRY(const json all, session_->execute({"query-migrate-capabilities"}));
  std::vector<std::string_view> needed = {"events"};
  if (kind_ == MigrationKind::mapped_ram) needed.push_back("mapped-ram");
  if (kind_ == MigrationKind::background) needed.push_back("background-snapshot");
  const std::array<std::string_view, 3> special = {"mapped-ram", "background-snapshot", "events"};
  std::size_t found = 0;
  ours_ = theirs_ = json::array();
  for (const json& entry : all.is_array() ? all : json::array()) {
    const json name = entry.is_object() ? entry.value("capability", json()) : json();
    if (!name.is_string()) continue;
    const std::string text = name.get<std::string>();
    const json state = entry.value("state", json());
    const bool is_on = state.is_boolean() && state.get<bool>();
    const bool want = has_name(needed, text);
    found += want ? 1 : 0;
    has_files_ = has_files_ || text == "mapped-ram";  // both came with QEMU 9.0, or nearly
    if (is_on == want || !(want || has_name(unwanted, text) || has_name(special, text))) continue;
    ours_.push_back(capability(text, want));
    theirs_.push_back(capability(text, is_on));
  }
  if (found == needed.size()) return {};
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("migrate to a file: this QEMU has no {}", needed.back()),
               .hint = kind_ == MigrationKind::mapped_ram ? "QEMU 9.0 and later have it" : ""};
}

Result<void> Migration::set_capabilities(bool ours) {
  const json& list = ours ? ours_ : theirs_;
  if (list.empty()) return {};
  VMSIGHT_TRY(const json done,
              session_->execute({"migrate-set-capabilities", {{"capabilities", list}}}));
  static_cast<void>(done);
  return {};
}

Result<void> Migration::run(const SaveFile& into, std::uint64_t bytes) {
  VMSIGHT_TRY_VOID(learn_capabilities());  // others may have changed them since open()
  VMSIGHT_TRY(const json parameters, session_->execute({"query-migrate-parameters"}));
  limit_ = parameters.is_object() ? parameters.value("max-bandwidth", json()) : json();
  VMSIGHT_TRY_VOID(session_->arm(make_change(migration_change, {{"background", is_background()},
                                                                {"capabilities", theirs_},
                                                                {"max-bandwidth", limit_}}),
                                 max_halt_));
  auto done = run_guarded(into, bytes);
  auto resumed = resume();
  // If the guard had to end it, that explains all other failures.
  VMSIGHT_TRY_VOID(session_->disarm());
  VMSIGHT_TRY_VOID(resumed);
  return done;
}

Result<void> Migration::run_guarded(const SaveFile& into, std::uint64_t bytes) {
  const ScopeExit restore([&] {
    session_->with_client([&](QmpClient& monitor) { restore_settings(monitor, theirs_, limit_); });
  });
  VMSIGHT_TRY_VOID(set_capabilities(true));
  VMSIGHT_TRY(const json set,
              session_->execute({"migrate-set-parameters", {{"max-bandwidth", bandwidth}}}));
  static_cast<void>(set);
  if (kind_ == MigrationKind::stopped) {
    VMSIGHT_TRY(const json stopped, session_->execute({"stop"}));
    static_cast<void>(stopped);
  }
  VMSIGHT_TRY_VOID(start(into));
  auto done = wait(bytes);
  if (!done) session_->with_client([&](QmpClient& monitor) { end(monitor, is_background()); });
  // The guest must not wait for the settings.
  if (done) VMSIGHT_TRY_VOID(resume());
  return done;
}

/// QEMU 11 takes a regular file only by name; 7.2 knows no name but takes a descriptor.
Result<void> Migration::start(const SaveFile& into) {
  std::string uri = "file:" + into.path();
  if (!has_files_) {
    MonitorSession::Command give{"getfd", {{"fdname", descriptor_name}}};
    give.descriptor = into.fd();
    VMSIGHT_TRY(const json given, session_->execute(std::move(give)));
    static_cast<void>(given);
    uri = fmt::format("fd:{}", descriptor_name);
  }
  auto started = session_->execute({"migrate", {{"uri", uri}}});
  if (started) return {};
  if (!has_files_) session_->with_client(&forget_descriptor);
  return std::move(started).error();
}

Result<void> Migration::wait(std::uint64_t bytes) {
  const auto deadline = std::chrono::steady_clock::now() + save_patience(bytes);
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    auto event = session_->wait_event("MIGRATION", std::max(left, 0ms));
    if (!event) return std::move(event).error();
    const json status = event->data.is_object() ? event->data.value("status", json()) : json();
    if (!status.is_string() || !is_over(status.get<std::string>())) continue;
    if (status == "completed") return finish();
    VMSIGHT_TRY(const json info, session_->execute({"query-migrate"}));
    const json words = info.is_object() ? info.value("error-desc", json()) : json();
    return Error{.code = ErrorCode::os,
                 .message = fmt::format(
                     "migrate to a file: {}: {}", status.get<std::string>(),
                     words.is_string() ? words.get<std::string>() : "QEMU does not say why")};
  }
}

/// QEMU says "completed" a moment before it leaves the state in which it refuses to resume.
Result<void> Migration::finish() {
  for (int i = 0; i < 1000; ++i) {
    VMSIGHT_TRY(const std::string status, session_->with_client(&ask_run_state));
    if (status != "finish-migrate") return {};
    std::this_thread::sleep_for(look_again);
  }
  return Error{.code = ErrorCode::timeout, .message = "migrate to a file: QEMU does not finish"};
}

Result<void> Migration::resume() {
  auto resumed = session_->with_client(&make_it_run);
  if (resumed) return {};
  Error error = explain_failure(vm_, std::move(resumed).error());
  if (error.code != ErrorCode::vm_gone) error.hint = "`cont` in QEMU's monitor resumes the guest";
  return error;
}

std::uint64_t pause_of(std::span<const QmpClient::Event> events) {
  std::uint64_t total = 0, stopped_at = 0;
  for (const QmpClient::Event& event : events) {
    if (event.name == "STOP" && stopped_at == 0) stopped_at = event.time_us;
    if (event.name != "RESUME" || stopped_at == 0) continue;
    total += std::max(event.time_us, stopped_at) - stopped_at;
    stopped_at = 0;
  }
  if (stopped_at != 0) total += std::max(events.back().time_us, stopped_at) - stopped_at;
  return total * 1000;
}

}  // namespace vmsight
