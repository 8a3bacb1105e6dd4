// Rules about records of the state: one that is there, has come, has gone or has changed.
#include <map>
#include <optional>
#include <set>

#include "watch/detector.h"
#include "watch/record_fields.h"

namespace vmsight::detect {
namespace {

using When = StateRule::When;

/// A process that a record is of, if it has one.
template <typename Record>
std::int32_t pid_of(const Record& record) {
  if constexpr (requires { record.pid.value_or(0); }) {
    return record.pid.value_or(0);
  } else if constexpr (requires { record.pid + 0; }) {
    return record.pid;
  } else {
    return 0;
  }
}
template <typename Record>
constexpr bool has_process = !std::is_same_v<Record, Process> && requires(Record r) {
  r.pid;
};

template <typename Record>
class OfRecord final : public Fields {
 public:
  OfRecord(const State& state, const Record& record) : state_(state), record_(record) {}
  Value get(std::string_view name) const override {
    constexpr std::string_view prefix = "proc.";
    if (!has_process<Record> || !name.starts_with(prefix)) return value_of(record_, name);
    const Process* process = find_process(state_, pid_of(record_));
    return process == nullptr ? Value() : value_of(*process, name.substr(prefix.size()));
  }

 private:
  const State& state_;
  const Record& record_;
};

template <typename Record>
class StateDetector final : public Detector {
 public:
  explicit StateDetector(CompiledRule rule)
      : rule_(std::move(rule)), how_(std::get<StateRule>(rule_.rule().kind)) {}

  const CompiledRule& rule() const override { return rule_; }
  unsigned parts() const override {
    return kind_of<Record>().part | (has_process<Record> ? unsigned{part_processes} : 0U);
  }
  std::uint64_t every_ns() const override { return how_.every_ns; }
  std::vector<ProbeRequest> probes() const override { return {}; }
  void hit(const ProbeRequest&, const ProbeEvent&, const Raise&) override {}
  void counted(const ProbeRequest&, std::uint64_t) override {}

  void look(const Look& look, const Raise& raise) override {
    std::map<std::string, Known> now;
    for (const Record& record : look.state.*kind_of<Record>().records) {
      see(look, record, now, raise);
    }
    if (how_.when == When::gone) tell_gone(now, look, raise);
    known_ = std::move(now);
    has_looked_ = true;
  }

 private:
  struct Known {
    std::string changing;                               // of what would be a change
    std::vector<std::pair<std::string, Value>> values;  // of what the rule names, when it goes
    bool raised = false;
    std::optional<std::uint64_t>
        since_ns{};  // of the guest's running time: at each look since then the condition held
  };

  void see(const Look& look, const Record& record, std::map<std::string, Known>& now,
           const Raise& raise) {
    std::string identity = identity_of(record);
    const auto before = known_.find(identity);
    const bool is_new = before == known_.end();
    Known known{.changing = how_.when == When::changed ? changing_of(record) : "",
                .values = {},
                .raised = !is_new && before->second.raised,
                .since_ns = is_new ? std::nullopt : before->second.since_ns};
    const OfRecord<Record> fields(look.state, record);
    if (how_.when == When::gone) known.values = values_of(fields);
    const bool has_changed = !is_new && before->second.changing != known.changing;
    const bool is_asked = how_.when == When::present ||
                          (how_.when == When::appeared && is_new && has_looked_) ||
                          (how_.when == When::changed && has_changed);
    const bool is_so = is_asked && rule_.matches(fields, memory_, look.guest_ns);
    const bool holds = has_lasted(is_so, look.guest_ns, known.since_ns);
    if (holds && !(how_.when == When::present && known.raised)) {
      raise({.fields = fields, .pid = pid(record), .object = {}});
    }
    if (how_.when == When::present) known.raised = holds;
    now.emplace(std::move(identity), std::move(known));
  }

  /// Whether what is so now has been so at each look for as long as the rule asks for.
  bool has_lasted(bool is_so, std::uint64_t now_ns, std::optional<std::uint64_t>& since_ns) const {
    if (!is_so) {
      since_ns.reset();
      return false;
    }
    if (!since_ns || now_ns < *since_ns) since_ns = now_ns;
    return now_ns - *since_ns >= how_.for_ns;
  }

  static std::int32_t pid(const Record& record) {
    if constexpr (std::is_same_v<Record, Process>) return record.pid;
    return pid_of(record);
  }

  std::vector<std::pair<std::string, Value>> values_of(const Fields& fields) const {
    std::vector<std::pair<std::string, Value>> values;
    for (const auto& named : rule_.fields())
      values.emplace_back(named.name, fields.get(named.name));
    return values;
  }

  void tell_gone(const std::map<std::string, Known>& now, const Look& look, const Raise& raise) {
    for (const auto& [identity, known] : known_) {
      if (now.contains(identity)) continue;
      const FieldValues fields(known.values);
      if (rule_.matches(fields, memory_, look.guest_ns)) raise({.fields = fields, .object = {}});
    }
  }

  CompiledRule rule_;
  StateRule how_;
  Memory memory_;
  std::map<std::string, Known> known_;
  bool has_looked_ = false;
};

/// visit(kind) for the kind whose key it is; whether there is one.
template <typename Visit>
bool with_kind(std::string_view key, Visit visit) {
  bool found = false;
  each_kind([&]<typename Record>(const Kind<Record>& kind) {
    if (kind.key != key) return;
    found = true;
    visit(kind);
  });
  return found;
}

std::string kind_names() {
  std::string names;
  each_kind([&](const auto& kind) {
    names += names.empty() ? "" : ", ";
    names += kind.key;
  });
  return names;
}

}  // namespace

Result<std::unique_ptr<FieldNames>> state_field_names(const Rule& rule) {
  std::unique_ptr<FieldNames> names;
  const std::string& of = std::get<StateRule>(rule.kind).of;
  with_kind(of, [&]<typename Record>(const Kind<Record>& kind) {
    names = std::make_unique<RecordFieldNames>(rows_of(kind), has_process<Record>);
  });
  if (names) return names;
  return Error{.code = ErrorCode::usage,
               .message = about(rule, rule.place) + "state: no records are called \"" + of + "\"",
               .hint = "of: one of " + kind_names()};
}

Result<std::unique_ptr<Detector>> make_state_detector(CompiledRule rule) {
  std::unique_ptr<Detector> made;
  const std::string of = std::get<StateRule>(rule.rule().kind).of;
  with_kind(of, [&]<typename Record>(const Kind<Record>&) {
    made = std::make_unique<StateDetector<Record>>(std::move(rule));
  });
  return made;
}

}  // namespace vmsight::detect
