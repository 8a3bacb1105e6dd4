// Rules about what a task enters and must leave: an alarm when it has not left it for too long, or has gone
// round in it too often. Time is the guest's running time.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "watch/detector.h"
#include "watch/hit_fields.h"

namespace vmsight::detect {
namespace {

using Row = std::pair<std::string, Value>;

class LoopDetector final : public Detector {
 public:
  explicit LoopDetector(CompiledRule rule)
      : rule_(std::move(rule)), how_(std::get<Loop>(rule_.rule().kind)) {}

  const CompiledRule& rule() const override { return rule_; }
  unsigned parts() const override { return part_processes | part_threads; }
  std::uint64_t every_ns() const override {
    if (how_.for_ns == 0) return 1'000'000'000;  // tasks that have ended are forgotten
    return std::clamp<std::uint64_t>(how_.for_ns / 10, 100'000'000, 1'000'000'000);
  }

  /// Each is told: tasks are told apart here. Only who enters is chosen by the condition; the name of a
  /// task may be another where it leaves.
  std::vector<ProbeRequest> probes() const override {
    const auto knows_no_other = [](std::string_view) { return false; };
    std::vector<ProbeRequest> requests{
        {.site = how_.entry, .filter = filter_of(rule_.condition(), knows_no_other)},
        {.site = how_.exit}};
    if (!how_.body.empty()) requests.push_back({.site = how_.body});
    return requests;
  }
  void counted(const ProbeRequest&, std::uint64_t) override {}

  void hit(const ProbeRequest& request, const ProbeEvent& event, const Raise& raise) override {
    const std::int32_t tid = event.hit.task.pid;
    if (request.site == how_.entry) {
      if (!inside_.contains(tid) && inside_.size() >= most_tasks) return;
      ++inside_[tid].depth;
      return;
    }
    const auto at = inside_.find(tid);
    if (at == inside_.end()) return;  // it was in when the probes were armed
    Inside& task = at->second;
    if (request.site == how_.exit) {
      if (--task.depth == 0) inside_.erase(at);
      return;
    }
    ++task.turns;
    if (how_.turns == 0 || task.turns <= how_.turns || task.told) return;
    const FieldValues own({Row{"turns", Value(task.turns)},
                           Row{"symbol", Value(std::string(event.function))},
                           Row{"function", Value(entered())}});
    const HitFields of_hit(event);
    const JoinedFields fields(own, of_hit);
    if (!rule_.matches(fields, memory_, event.hit.time_ns)) return;
    task.told = true;
    raise({.fields = fields, .pid = event.hit.task.tgid, .object = {}});
  }

  void look(const Look& look, const Raise& raise) override {
    for (auto& [tid, task] : inside_) ++task.missed;
    for (const Thread& thread : look.state.threads) {
      const auto at = inside_.find(thread.pid);
      if (at == inside_.end()) continue;
      Inside& task = at->second;
      const bool is_another = task.start_ns && *task.start_ns != thread.start_time_ns;
      task.missed = is_another ? most_missed : 0;
      if (is_another) continue;
      task.start_ns = thread.start_time_ns;
      if (task.since_ns == 0 || look.guest_ns < task.since_ns) task.since_ns = look.guest_ns;
      if (how_.for_ns != 0 && look.guest_ns - task.since_ns > how_.for_ns)
        tell(look, thread, task, raise);
    }
    std::erase_if(inside_, [](const auto& entry) { return entry.second.missed >= most_missed; });
  }

 private:
  static constexpr std::size_t most_tasks = 10'000;
  /// Looks in a row: one alone may have met a list that was changing.
  static constexpr unsigned most_missed = 2;

  struct Inside {
    unsigned depth = 0;          // entries that were not left
    std::uint64_t turns = 0;     // hits of the body
    std::uint64_t since_ns = 0;  // of the guest's running time; 0: it was not looked at yet
    std::optional<std::uint64_t> start_ns{};  // of the task: another with its number has another
    unsigned missed = 0;                      // looks in a row that did not have it
    bool told = false;                        // of its turns
  };

  /// The function of the entry, as the rule names it.
  std::string entered() const { return how_.entry.substr(how_.entry.find(':') + 1); }

  void tell(const Look& look, const Thread& thread, const Inside& task, const Raise& raise) {
    const std::string where =
        look.where ? look.where(thread.task, thread.cpu, thread.state == 'R') : "";
    const FieldValues fields(
        {Row{"comm", Value(std::string(thread.comm))}, Row{"pid", Value(std::int64_t{thread.pid})},
         Row{"tgid", Value(std::int64_t{thread.tgid})}, Row{"cpu", Value(std::int64_t{thread.cpu})},
         Row{"function", Value(entered())}, Row{"turns", Value(task.turns)},
         Row{"standing", Value(seconds_text(look.guest_ns - task.since_ns))},
         Row{"symbol", where.empty() ? Value() : Value(where)}});
    if (!rule_.matches(fields, memory_, look.guest_ns)) return;
    raise({.fields = fields,
           .pid = thread.tgid,
           .object = fmt::format("{}/{}/{}", thread.pid, thread.start_time_ns, task.since_ns)});
  }

  CompiledRule rule_;
  Loop how_;
  Memory memory_;
  std::map<std::int32_t, Inside> inside_;  // by the number of the task
};

}  // namespace

std::unique_ptr<FieldNames> loop_field_names() {
  std::vector<RecordFieldNames::Row> rows = rows_of_hits();
  std::erase_if(rows, [](const auto& row) { return row.first == "duration_ns"; });
  rows.insert(rows.end(), {{"turns", {.kind = FieldType::Kind::number}},
                           {"standing", {.kind = FieldType::Kind::text}},
                           {"symbol", {.kind = FieldType::Kind::text}}});
  return std::make_unique<RecordFieldNames>(std::move(rows), false);
}

Result<std::unique_ptr<Detector>> make_loop_detector(CompiledRule rule) {
  return std::unique_ptr<Detector>(std::make_unique<LoopDetector>(std::move(rule)));
}

}  // namespace vmsight::detect
