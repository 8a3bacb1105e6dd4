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

constexpr std::size_t most_counted = 4;  // processes: other rules may probe the same site

class HeartbeatDetector final : public Detector {
 public:
  explicit HeartbeatDetector(CompiledRule rule)
      : rule_(std::move(rule)), how_(std::get<Heartbeat>(rule_.rule().kind)) {}

  const CompiledRule& rule() const override { return rule_; }
  unsigned parts() const override { return is_per_process() ? part_processes : part_os; }
  std::uint64_t every_ns() const override {
    return std::clamp<std::uint64_t>(how_.expect_ns / 10, 100'000'000, 1'000'000'000);
  }

  /// Hits are only counted, where they happen: of the whole VM, or of each process that must beat. Of
  /// more processes than a site has room for each hit is told.
  std::vector<ProbeRequest> probes() const override {
    std::vector<ProbeRequest> requests;
    for (const std::string& site : how_.probes) {
      if (!is_per_process() || !has_looked_) {
        requests.push_back({.site = site, .counts_only = true});
      } else if (is_told()) {
        requests.push_back({.site = site});
      } else {
        for (const std::int32_t pid : members_)
          requests.push_back({.site = site, .pid = pid, .counts_only = true});
      }
    }
    return requests;
  }

  void hit(const ProbeRequest&, const ProbeEvent& event, const Raise&) override {
    const auto known = processes_.find(event.hit.task.tgid);
    if (known != processes_.end()) known->second.beat = true;
  }
  void counted(const ProbeRequest& request, std::uint64_t hits) override {
    if (!request.counts_only) return;
    Timer* timer = request.pid ? nullptr : &vm_;
    if (request.pid) {
      const auto known = processes_.find(*request.pid);
      if (known == processes_.end()) return;
      timer = &known->second;
    }
    std::uint64_t& before = timer->hits[request.site];
    if (hits > before) timer->beat = true;
    before = hits;
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
    std::map<std::string, std::uint64_t> hits{};  // of each site, so far
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
    return seconds_text(now_ns - timer.last_ns);
  }

  /// A rule without a condition is about those that beat at all, which only their hits tell.
  bool is_told() const {
    return rule_.rule().condition.text.empty() || members_.size() > most_counted;
  }

  /// Those for which the rule's condition holds must beat, each for itself.
  void look_at_processes(const Look& look, const Raise& raise) {
    has_looked_ = true;
    members_.clear();
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
      if (!rule_.matches(fields, memory_, look.guest_ns)) continue;
      members_.push_back(process.pid);
      const bool is_meant = timer.has_beaten || !rule_.rule().condition.text.empty();
      if (is_silent && is_meant) {
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
  bool has_looked_ = false;
  std::vector<std::int32_t> members_;  // for which the condition held at the last look
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
