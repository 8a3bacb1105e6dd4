// Rules about hits of probes: conditions on what the vCPU knew there.
#include "probe/arguments.h"
#include "probe/kernel_sites.h"
#include "watch/detector.h"
#include "watch/record_fields.h"

namespace vmsight::detect {
namespace {

/// What every hit has.
std::vector<RecordFieldNames::Row> rows_of_hits() {
  return {{"comm", {.kind = FieldType::Kind::text}},
          {"function", {.kind = FieldType::Kind::text}},
          {"pid", {.kind = FieldType::Kind::signed_number, .bits = 32}},
          {"tgid", {.kind = FieldType::Kind::signed_number, .bits = 32}},
          {"cpu", {.kind = FieldType::Kind::number, .bits = 32}},
          {"duration_ns", {.kind = FieldType::Kind::number}}};
}

FieldType type_of(const ArgumentPlan& argument) {
  using Shape = ArgumentPlan::Shape;
  if (argument.shape == Shape::text) return {.kind = FieldType::Kind::text};
  if (argument.shape == Shape::pointer) return {.kind = FieldType::Kind::address};
  if (argument.type.empty()) return {.kind = FieldType::Kind::untyped};
  return {.kind = argument.is_signed ? FieldType::Kind::signed_number : FieldType::Kind::number,
          .bits = argument.bits};
}

/// Arguments by the names that the function has in this guest.
Result<void> add_arguments(const std::string& text, const ProbedKernel& guest,
                           std::vector<RecordFieldNames::Row>& rows) {
  VMSIGHT_TRY(const Site site, parse_site(text));
  ProbeSite found{.user = site.user, .at_return = site.at_return};
  if (!site.user) {
    VMSIGHT_TRY(const auto sites, find_kernel_sites(guest.kernel, site));
    if (!sites.empty()) found = sites.front();
  }
  const FunctionPlan plan = plan_function(guest.kernel, guest.reader, found);
  for (const ArgumentPlan& argument : plan.arguments)
    rows.emplace_back(argument.name, type_of(argument));
  if (plan.result && site.at_return) rows.emplace_back("retval", type_of(*plan.result));
  return {};
}

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

Result<std::unique_ptr<FieldNames>> probe_field_names(const Rule& rule, const ProbedKernel* guest) {
  std::vector<RecordFieldNames::Row> rows = rows_of_hits();
  for (const std::string& text : std::get<ProbeRule>(rule.kind).probes) {
    if (guest == nullptr) {
      VMSIGHT_TRY(const Site site, parse_site(text));
      static_cast<void>(site);
    } else {
      VMSIGHT_TRY_VOID(add_arguments(text, *guest, rows));
    }
  }
  return std::unique_ptr<FieldNames>(std::make_unique<RecordFieldNames>(std::move(rows), false));
}

Result<std::unique_ptr<Detector>> make_probe_detector(CompiledRule rule) {
  return std::unique_ptr<Detector>(std::make_unique<ProbeDetector>(std::move(rule)));
}

}  // namespace vmsight::detect
