// What changes while rules run on a guest: the rules, and whether the guest runs.
#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "detect/rule_difference.h"
#include "detect/sink.h"
#include "kernel/guest_text.h"
#include "qemu/monitor_session.h"
#include "watch/guest_watch.h"

namespace vmsight::detect {
namespace {

constexpr std::uint64_t run_check_ns = 1'000'000'000;  // between questions whether it runs again

}  // namespace

Result<RuleChanges> GuestWatch::replace_rules(WatchedRules rules) {
  deliver_found(Doubt::is_told);  // by rules that may go now
  RuleChanges changes;
  std::map<std::string, std::unique_ptr<Running>> before;
  for (auto& running : running_) before[running->rule.name] = std::move(running);
  running_.clear();
  for (Rule& rule : rules.rules) {
    rule_by_name_[rule.name] = rule;
    const auto known = before.find(rule.name);
    if (known != before.end() && is_same_rule(known->second->rule, *rules_.set, rule, *rules.set)) {
      ++changes.unchanged;
      running_.push_back(std::move(known->second));
      before.erase(known);
      continue;
    }
    ++(known != before.end() ? changes.changed : changes.added);
    running_.push_back(begin(std::move(rule)));
  }
  changes.removed = before.size() - changes.changed;
  std::vector<ProbeId> ids;
  for (const auto& [name, running] : before) {
    for (const Armed& armed : running->armed)
      ids.insert(ids.end(), armed.ids.begin(), armed.ids.end());
  }
  rules_.set = std::move(rules.set);
  rules_.rules.clear();
  for (const auto& running : running_) rules_.rules.push_back(running->rule);
  // Their handlers go with them: the hits of those that stay are told to the same ones as before.
  if (prober_ && !ids.empty()) VMSIGHT_TRY_VOID(prober_->remove(ids));
  arm_pending(monotonic_ns());
  return changes;
}

// ---- pausing -------------------------------------------------------------------------------

/// While it is, nothing is armed that would have to stop the guest.
bool GuestWatch::is_suspended(std::uint64_t now_ns) {
  if (!suspended_ || now_ns < next_run_check_ns_) return suspended_;
  next_run_check_ns_ = now_ns + run_check_ns;
  const auto state = guest_.vm->run_state();
  suspended_ = !state || *state != "running";
  if (!suspended_) options_.note(fmt::format("{}: the guest runs again", escape_bytes(name_)));
  return suspended_;
}

void GuestWatch::disarm_what_stops() {
  if (!prober_ || !prober_->abilities().stops_guest) return;
  prober_.reset();
  for (const auto& running : running_) {
    if (running->armed.empty()) continue;
    running->armed.clear();
    running->pending = true;
    running->next_try_ns = 0;
  }
}

Result<bool> GuestWatch::pause(const std::string& by) {
  if (!guest_.vm) {
    return Error{.code = ErrorCode::unsupported, .message = "pause: an image does not run"};
  }
  disarm_what_stops();
  VMSIGHT_TRY(const auto session, MonitorSession::of(guest_.vm->info()));
  VMSIGHT_TRY(const std::uint64_t was_running,
              session->ask(GuardRequest::pause, {{"by", by}, {"time", rfc3339(wall_clock_ns())}}));
  suspended_ = true;
  next_run_check_ns_ = monotonic_ns() + run_check_ns;
  return was_running != 0;
}

}  // namespace vmsight::detect
