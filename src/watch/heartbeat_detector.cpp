// Rules about what must come again and again: an alarm when it has not come for too long. Time is the
// guest's running time: a guest that is paused, or a host that stalls, is no alarm.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "watch/detector.h"
#include "watch/record_fields.h"

namespace vmsight::detect {
namespace {

using Row = std::pair<std::string, Value>;

constexpr std::uint64_t told_a_second = 10;  // hits of a process: one in its time is enough

class HeartbeatDetector final : public Detector {
 public:
  explicit HeartbeatDetector(CompiledRule rule)
      : rule_(std::move(rule)), how_(std::get<Heartbeat>(rule_.rule().kind)) {}

  const CompiledRule& rule() const override { return rule_; }
  unsigned parts() const override { return is_per_process() ? part_processes : part_os; }
  std::uint64_t every_ns() const override {
    return std::clamp<std::uint64_t>(how_.expect_ns / 10, 100'000'000, 1'000'000'000);
  }

  /// Of one for the whole VM hits are only counted, where they happen.
  std::vector<ProbeRequest> probes() const override {
    std::vector<ProbeRequest> requests;
    for (const std::string& site : how_.probes) {
      requests.push_back({.site = site,
                          .counts_only = !is_per_process(),
                          .rate_limit = is_per_process() ? told_a_second * 100 : 0});
    }
    return requests;
  }

  void hit(const ProbeEvent& event, const Raise&) override {
    const auto known = processes_.find(event.hit.task.tgid);
    if (known != processes_.end()) known->second.beat = true;
  }
  void counted(std::uint64_t hits) override {
    if (std::exchange(hits_, hits) != hits) vm_.beat = true;
  }

  void look(const Look& look, const Raise& raise) override {
    if (is_per_process()) return look_at_processes(look, raise);
    if (!silent(vm_, look.guest_ns)) return;
    const FieldValues fields({Row{"silence", Value(silence(vm_, look.guest_ns))}});
    if (rule_.matches(fields, memory_, look.guest_ns)) raise({.fields = fields, .object = "vm"});
  }

 private:
  struct Timer {
    bool beat = false;           // since the last look
    bool has_beaten = false;     // ever
    std::uint64_t last_ns = 0;   // of the guest's running time; 0: not looked at yet
    std::uint64_t start_ns = 0;  // of the process: another one with its PID has another
    bool seen = false;
  };

  bool is_per_process() const { return how_.per == Heartbeat::Per::process; }

  /// The first beat has the grace besides.
  bool silent(Timer& timer, std::uint64_t now_ns) const {
    if (std::exchange(timer.beat, false)) {
      timer.has_beaten = true;
      timer.last_ns = now_ns;
    }
    if (timer.last_ns == 0 || now_ns < timer.last_ns) timer.last_ns = now_ns;
    const std::uint64_t allowed = how_.expect_ns + (timer.has_beaten ? 0 : how_.grace_ns);
    return now_ns - timer.last_ns > allowed;
  }
  static std::string silence(const Timer& timer, std::uint64_t now_ns) {
    return fmt::format("{:.1f}s", static_cast<double>(now_ns - timer.last_ns) / 1e9);
  }

  /// Those for which the rule's condition holds must beat, each for itself.
  void look_at_processes(const Look& look, const Raise& raise) {
    for (auto& [pid, timer] : processes_) timer.seen = false;
    for (const Process& process : look.state.processes) {
      if (process.kernel_thread || process.state == 'Z') continue;
      const OfProcess of_process(process);
      Timer& timer = processes_[process.pid];
      if (timer.start_ns != process.start_time_ns) timer = {.start_ns = process.start_time_ns};
      timer.seen = true;
      const bool is_silent = silent(timer, look.guest_ns);
      const FieldValues own({Row{"silence", Value(silence(timer, look.guest_ns))}});
      const JoinedFields fields(own, of_process);
      // Without a condition it is about those that beat at all.
      const bool is_meant = timer.has_beaten || !rule_.rule().condition.text.empty();
      if (is_silent && is_meant && rule_.matches(fields, memory_, look.guest_ns)) {
        raise({.fields = fields,
               .pid = process.pid,
               .object = fmt::format("{}/{}", process.pid, process.start_time_ns)});
      }
    }
    std::erase_if(processes_, [](const auto& entry) { return !entry.second.seen; });
  }

  class OfProcess final : public Fields {
   public:
    explicit OfProcess(const Process& process) : process_(process) {}
    Value get(std::string_view name) const override { return value_of(process_, name); }

   private:
    const Process& process_;
  };

  CompiledRule rule_;
  Heartbeat how_;
  Memory memory_;
  Timer vm_;
  std::uint64_t hits_ = 0;
  std::map<std::int32_t, Timer> processes_;
};

}  // namespace

std::unique_ptr<FieldNames> heartbeat_field_names(const Rule& rule) {
  std::vector<RecordFieldNames::Row> rows{{"silence", {.kind = FieldType::Kind::text}}};
  if (std::get<Heartbeat>(rule.kind).per == Heartbeat::Per::process)
    rows.insert(rows.end(), process_rows().begin(), process_rows().end());
  return std::make_unique<RecordFieldNames>(std::move(rows), false);
}

Result<std::unique_ptr<Detector>> make_heartbeat_detector(CompiledRule rule) {
  return std::unique_ptr<Detector>(std::make_unique<HeartbeatDetector>(std::move(rule)));
}

}  // namespace vmsight::detect
