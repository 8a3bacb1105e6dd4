#include "qemu/run_state.h"

#include <poll.h>

#include "qemu/undo_by_monitor.h"

namespace vmsight {
namespace {

using nlohmann::json;

Result<void> undo_stop(QmpClient& monitor, const ProcessId&, const json&) {
  return make_it_run(monitor);
}

}  // namespace

constinit const ChangeKind stopped_change{.name = "stopped",
                                          .what = "the guest was stopped by QMP",
                                          .undo = by_own_connection<undo_stop>,
                                          .undo_by_monitor = undo_stop};

constinit const ChangeKind paused_change{.name = "paused",
                                         .what = "the guest was paused because a rule asked for it",
                                         .undo = by_own_connection<undo_stop>,
                                         .undo_by_monitor = undo_stop,
                                         .on_purpose = true};

Result<std::string> ask_run_state(QmpClient& monitor) {
  VMSIGHT_TRY(const json answer, monitor.execute({"query-status"}));
  return parse_run_state(answer);
}

Result<std::string> parse_run_state(const json& answer) {
  const json status = answer.is_object() ? answer.value("status", json()) : json();
  if (!status.is_string() || status.get_ref<const std::string&>().empty()) {
    return Error{.code = ErrorCode::bad_data, .message = "QMP query-status: no status"};
  }
  return status.get<std::string>();
}

Result<void> make_it_run(QmpClient& monitor) {
  constexpr int patience = 1000;
  constexpr int pause_ms = 2;
  for (int i = 0; i < patience; ++i) {
    VMSIGHT_TRY(const std::string status, ask_run_state(monitor));
    if (status == "running") return {};
    if (status != "finish-migrate" && status != "save-vm") break;
    ::poll(nullptr, 0, pause_ms);
  }
  VMSIGHT_TRY(const json done, monitor.execute({"cont"}));
  static_cast<void>(done);
  return {};
}

}  // namespace vmsight
