// Rules about what does not get on: a process or kernel thread that spins, a task that waits in D, a
// CPU or run queue that does not switch, a guest that stands.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "watch/activity.h"
#include "watch/detector.h"
#include "watch/record_fields.h"

namespace vmsight::detect {
namespace {

using Of = Progress::Of;
using Row = std::pair<std::string, Value>;

/// What has not moved since when.
struct Standstill {
  std::uint64_t since_ns = 0;  // of the guest's running time
  std::uint64_t ran_ns = 0;    // then
  std::uint64_t moves = 0;     // what would have been more, had it got on
  bool seen = false;           // in this look
};

class ProgressDetector final : public Detector {
 public:
  explicit ProgressDetector(CompiledRule rule)
      : rule_(std::move(rule)), how_(std::get<Progress>(rule_.rule().kind)) {}

  const CompiledRule& rule() const override { return rule_; }
  unsigned parts() const override {
    const bool needs_tasks =
        how_.of == Of::process || how_.of == Of::kernel_thread || how_.of == Of::task;
    return needs_tasks ? part_processes | part_threads : part_os;
  }
  /// Often enough to see it within a fifth of its time, and no more than ten times a second.
  std::uint64_t every_ns() const override {
    return std::clamp<std::uint64_t>(how_.for_ns / 5, 100'000'000, 2'000'000'000);
  }
  std::vector<ProbeRequest> probes() const override { return {}; }
  void hit(const ProbeRequest&, const ProbeEvent&, const Raise&) override {}
  void counted(const ProbeRequest&, std::uint64_t) override {}

  void look(const Look& look, const Raise& raise) override {
    if (!reader_ && how_.of != Of::guest) {
      auto resolved = ActivityReader::resolve(look.kernel);
      if (!resolved) return;
      reader_ = *std::move(resolved);
    }
    for (auto& [key, standstill] : standing_) standstill.seen = false;
    switch (how_.of) {
      case Of::process:
      case Of::kernel_thread:
        look_at_processes(look, raise);
        break;
      case Of::task:
        look_at_tasks(look, raise);
        break;
      case Of::cpu:
      case Of::runqueue:
        look_at_cpus(look, raise);
        break;
      case Of::guest:
        look_at_guest(look, raise);
        break;
    }
    std::erase_if(standing_, [](const auto& entry) { return !entry.second.seen; });
  }

 private:
  /// The kernel's own watchdog takes even a CPU that nobody else gets, each 4 s, and gives it back. One that
  /// is shared switches a hundred times a second.
  static constexpr std::uint64_t spared_switches = 4, spared_switch_ns = 1'000'000'000;

  /// Whether it has not moved for as long as the rule says, or hardly, if that is spared.
  bool stands(const std::string& key, std::uint64_t moves, std::uint64_t ran_ns,
              std::uint64_t now_ns, bool spares = false) {
    auto [at, is_new] = standing_.try_emplace(key);
    Standstill& standstill = at->second;
    standstill.seen = true;
    const std::uint64_t most =
        spares ? spared_switches + (now_ns - standstill.since_ns) / spared_switch_ns : 0;
    if (is_new || moves - standstill.moves > most || now_ns < standstill.since_ns) {
      standstill = {.since_ns = now_ns, .ran_ns = ran_ns, .moves = moves, .seen = true};
    }
    const std::uint64_t time = now_ns - standstill.since_ns;
    if (time < how_.for_ns || time == 0) return false;
    const std::uint64_t ran = ran_ns - std::min(standstill.ran_ns, ran_ns);
    stood_ns_ = time;
    percent_ = ran * 100 / time;
    return percent_ >= how_.cpu_percent.value_or(0);
  }

  struct Group {
    const Thread* busiest = nullptr;
    std::uint64_t moves = 0, ran_ns = 0, busiest_ns = 0;
    bool whole = true;
  };

  void look_at_processes(const Look& look, const Raise& raise) {
    std::map<std::int32_t, Group> groups;
    for (const Thread& thread : look.state.threads) {
      Group& group = groups[thread.tgid];
      const auto activity = reader_->read_task(look.reader, thread.task, thread.pid);
      if (!activity) {
        group.whole = false;
        continue;
      }
      group.moves += activity->voluntary + activity->transfers;
      group.ran_ns += activity->ran_ns;
      if (group.busiest == nullptr || activity->ran_ns > group.busiest_ns) {
        group.busiest = &thread;
        group.busiest_ns = activity->ran_ns;
      }
    }
    for (const auto& [pid, group] : groups) {
      const Process* process = find_process(look.state, pid);
      if (process == nullptr || !group.whole || group.busiest == nullptr) continue;
      if (process->kernel_thread != (how_.of == Of::kernel_thread)) continue;
      const auto key = fmt::format("{}/{}", pid, process->start_time_ns);
      if (stands(key, group.moves, group.ran_ns, look.guest_ns)) {
        tell(look, raise, key, process, *group.busiest, true);
      }
    }
  }

  void look_at_tasks(const Look& look, const Raise& raise) {
    for (const Thread& thread : look.state.threads) {
      if (thread.state != 'D') continue;
      const auto activity = reader_->read_task(look.reader, thread.task, thread.pid);
      if (!activity) continue;
      const auto key = fmt::format("{}/{}", thread.pid, thread.start_time_ns);
      if (stands(key, activity->voluntary + activity->involuntary, 0, look.guest_ns)) {
        tell(look, raise, key, find_process(look.state, thread.tgid), thread, false);
      }
    }
  }

  void tell(const Look& look, const Raise& raise, const std::string& key, const Process* process,
            const Thread& thread, bool runs) {
    const FieldValues own(
        {Row{"pid", Value(std::int64_t{thread.tgid})}, Row{"tid", Value(std::int64_t{thread.pid})},
         Row{"comm", Value(std::string(thread.comm))},
         Row{"state", Value(std::string(1, thread.state))},
         Row{"cpu", Value(std::int64_t{thread.cpu})}, Row{"cpu_percent", Value(percent_)},
         Row{"standing", Value(seconds_text(stood_ns_))}});
    const Where where(look, thread.task, thread.cpu, runs);
    const JoinedFields with_place(own, where);
    const OfProcess of_process(process);
    const JoinedFields fields(with_place, of_process);
    if (!rule_.matches(fields, memory_, look.guest_ns)) return;
    raise({.fields = fields, .pid = thread.tgid, .object = key});
  }

  /// soft: it takes interrupts; hard: it does not even do that.
  void look_at_cpus(const Look& look, const Raise& raise) {
    const auto cpus = reader_->read_cpus(look.kernel, look.reader);
    for (std::size_t cpu = 0; cpu < cpus.size(); ++cpu) {
      if (!cpus[cpu]) continue;
      const CpuActivity& activity = *cpus[cpu];
      const bool wants = how_.of == Of::cpu ? !activity.idle : activity.running > 1;
      const auto key = fmt::format("cpu{}", cpu);
      const auto timer = fmt::format("timer{}", cpu);
      if (!wants) continue;
      const bool takes_no_interrupts = stands(timer, activity.interrupts, 0, look.guest_ns);
      if (!stands(key, activity.switches, 0, look.guest_ns, true)) continue;
      const FieldValues own(
          {Row{"cpu", Value(std::int64_t{static_cast<std::int64_t>(cpu)})},
           Row{"lockup", Value(std::string(takes_no_interrupts ? "hard" : "soft"))},
           Row{"pid", pid_value(look, activity.current)},
           Row{"comm", Value(reader_->name_of(look.reader, activity.current))},
           Row{"waiting", Value(std::uint64_t{activity.running})},
           Row{"standing", Value(seconds_text(stood_ns_))}});
      const Where where(look, activity.current, static_cast<std::int32_t>(cpu), true);
      const JoinedFields fields(own, where);
      if (rule_.matches(fields, memory_, look.guest_ns)) raise({.fields = fields, .object = key});
    }
  }

  Value pid_value(const Look& look, GuestVirt task) const {
    const auto pid = reader_->pid_of(look.reader, task);
    return pid ? Value(std::int64_t{*pid}) : Value();
  }

  /// Its clock stands though the host's goes on.
  void look_at_guest(const Look& look, const Raise& raise) {
    if (!stands("guest", look.guest_ns, 0, look.host_ns)) return;
    if (const std::string why = look.halted_by_somebody(); !why.empty()) {
      standing_.clear();  // no alarm while it is paused, nor for the time that it was
      return;
    }
    // A kernel that was reset is found until the next has written over it. One that never does is told of, too.
    constexpr std::uint64_t longest_boot_ns = 60'000'000'000;
    if (stood_ns_ < longest_boot_ns && look.runs_other_code && look.runs_other_code()) return;
    const FieldValues own({Row{"standing", Value(seconds_text(stood_ns_))}});
    const Where where(look, GuestVirt(), 0, true);
    const JoinedFields fields(own, where);
    if (rule_.matches(fields, memory_, look.host_ns)) raise({.fields = fields, .object = "guest"});
  }

  /// Asked only if the rule names it.
  class Where final : public Fields {
   public:
    Where(const Look& look, GuestVirt task, std::int32_t cpu, bool runs)
        : look_(look), task_(task), cpu_(cpu), runs_(runs) {}
    Value get(std::string_view name) const override {
      if (name != "symbol") return {};
      if (!found_) found_ = look_.where ? look_.where(task_, cpu_, runs_) : "";
      return found_->empty() ? Value() : Value(*found_);
    }

   private:
    const Look& look_;
    GuestVirt task_;
    std::int32_t cpu_;
    bool runs_;
    mutable std::optional<std::string> found_;
  };

  class OfProcess final : public Fields {
   public:
    explicit OfProcess(const Process* process) : process_(process) {}
    Value get(std::string_view name) const override {
      return process_ == nullptr ? Value() : value_of(*process_, name);
    }

   private:
    const Process* process_;
  };

  CompiledRule rule_;
  Progress how_;
  Memory memory_;
  std::optional<ActivityReader> reader_;
  std::map<std::string, Standstill> standing_;
  std::uint64_t stood_ns_ = 0, percent_ = 0;  // of the last that stands() found
};

}  // namespace

std::unique_ptr<FieldNames> progress_field_names(const Rule& rule) {
  const Of of = std::get<Progress>(rule.kind).of;
  std::vector<RecordFieldNames::Row> rows{{"standing", {.kind = FieldType::Kind::text}},
                                          {"symbol", {.kind = FieldType::Kind::text}}};
  if (of == Of::cpu || of == Of::runqueue) {
    rows.insert(rows.end(), {{"cpu", {.kind = FieldType::Kind::signed_number}},
                             {"lockup", {.kind = FieldType::Kind::text}},
                             {"pid", {.kind = FieldType::Kind::signed_number}},
                             {"comm", {.kind = FieldType::Kind::text}},
                             {"waiting", {.kind = FieldType::Kind::number}}});
  } else if (of != Of::guest) {
    rows.insert(rows.end(), {{"tid", {.kind = FieldType::Kind::signed_number}},
                             {"cpu_percent", {.kind = FieldType::Kind::number}}});
    rows.insert(rows.end(), process_rows().begin(), process_rows().end());
  }
  return std::make_unique<RecordFieldNames>(std::move(rows), false);
}

Result<std::unique_ptr<Detector>> make_progress_detector(CompiledRule rule) {
  return std::unique_ptr<Detector>(std::make_unique<ProgressDetector>(std::move(rule)));
}

}  // namespace vmsight::detect
