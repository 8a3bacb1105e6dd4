// Rules about hits of probes: conditions on what the vCPU knew there.
#include "watch/detector.h"
#include "watch/record_fields.h"

namespace vmsight::detect {
namespace {

using Kind = FieldType::Kind;

/// Names of arguments are those of the function in this guest; which they are is known when it is
/// armed. So any word is taken here, and the engine's filter refuses what the function does not have.
class ProbeFieldNames final : public FieldNames {
 public:
  std::optional<FieldType> find(std::string_view name) const override {
    if (name == "comm" || name == "function") return FieldType{.kind = Kind::text};
    if (name == "pid" || name == "tgid") return FieldType{.kind = Kind::signed_number, .bits = 32};
    if (name == "cpu") return FieldType{.kind = Kind::number, .bits = 32};
    if (name == "duration_ns") return FieldType{.kind = Kind::number};
    return FieldType{.kind = Kind::untyped};
  }
  std::vector<std::string> all() const override {
    return {"pid", "tgid", "comm", "cpu", "function", "duration_ns", "retval"};
  }
};

class OfEvent final : public Fields {
 public:
  explicit OfEvent(const ProbeEvent& event) : event_(event) {}
  Value get(std::string_view name) const override {
    const ProbeHit& hit = event_.hit;
    if (name == "comm") return std::string(hit.task.name());
    if (name == "tgid") return std::int64_t{hit.task.tgid};
    if (name == "pid") return std::int64_t{hit.task.pid};
    if (name == "cpu") return std::uint64_t{hit.vcpu};
    if (name == "function") return std::string(event_.function);
    if (name == "duration_ns") return hit.at_return ? Value(hit.duration_ns) : Value();
    if (name == "retval") return event_.result ? of(*event_.result) : Value();
    for (const ProbeArgument& argument : event_.arguments) {
      if (argument.name == name) return of(argument);
    }
    return {};
  }

 private:
  static Value of(const ProbeArgument& argument) {
    if (!argument.known) return {};
    if (argument.is_text && argument.bytes) return std::string(*argument.bytes);
    if (argument.is_signed) return static_cast<std::int64_t>(argument.number);
    return argument.number;
  }
  const ProbeEvent& event_;
};

class ProbeDetector final : public Detector {
 public:
  explicit ProbeDetector(CompiledRule rule)
      : rule_(std::move(rule)), how_(std::get<ProbeRule>(rule_.rule().kind)) {}

  const CompiledRule& rule() const override { return rule_; }
  unsigned parts() const override { return 0; }
  std::uint64_t every_ns() const override { return 0; }

  /// What the engine can judge, it judges where the hit happens.
  std::vector<ProbeRequest> probes() const override {
    std::string filter;
    for (const ConditionTerm& term : rule_.condition().terms()) {
      if (term.name == "function" || term.name == "duration_ns") continue;
      filter += filter.empty() ? term.text : " && " + term.text;
    }
    std::vector<ProbeRequest> requests;
    for (const std::string& site : how_.probes)
      requests.push_back({.site = site, .filter = filter});
    return requests;
  }

  void look(const Look&, const Raise&) override {}
  void counted(std::uint64_t) override {}
  void hit(const ProbeEvent& event, const Raise& raise) override {
    const OfEvent fields(event);
    if (!rule_.matches(fields, memory_, event.hit.time_ns)) return;
    nlohmann::json arguments = nlohmann::json::object();
    for (const ProbeArgument& argument : event.arguments) {
      arguments[std::string(argument.name)] = argument.text;
    }
    raise({.fields = fields,
           .pid = event.hit.task.tgid,
           .object = {},
           .evidence = {{"site", to_string(event.site)},
                        {"vcpu", event.hit.vcpu},
                        {"arguments", std::move(arguments)}}});
  }

 private:
  CompiledRule rule_;
  ProbeRule how_;
  Memory memory_;
};

}  // namespace

std::unique_ptr<FieldNames> probe_field_names(const Rule&) {
  return std::make_unique<ProbeFieldNames>();
}

Result<std::unique_ptr<Detector>> make_probe_detector(CompiledRule rule) {
  return std::unique_ptr<Detector>(std::make_unique<ProbeDetector>(std::move(rule)));
}

}  // namespace vmsight::detect
