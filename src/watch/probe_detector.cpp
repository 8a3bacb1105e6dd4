// Rules about hits of probes: conditions on what the vCPU knew there.
#include <fmt/format.h>

#include <algorithm>

#include "probe/expression.h"
#include "probe/kernel_sites.h"
#include "watch/detector.h"
#include "watch/hit_fields.h"
#include "watch/record_fields.h"

namespace vmsight::detect {
namespace {

FieldType type_of(const ArgumentPlan& argument) {
  using Shape = ArgumentPlan::Shape;
  if (argument.shape == Shape::text) return {.kind = FieldType::Kind::text};
  if (argument.shape == Shape::pointer) return {.kind = FieldType::Kind::address};
  if (argument.type.empty()) return {.kind = FieldType::Kind::untyped};
  return {.kind = argument.is_signed ? FieldType::Kind::signed_number : FieldType::Kind::number,
          .bits = argument.bits};
}

/// A site that the guest has.
struct PlannedSite {
  std::string text;
  FunctionPlan plan;  // with the rule's fields behind the arguments
  bool at_return = false;
  std::vector<ProbeField> fields;  // those that its function can have
};

/// With `returns` a function is told when it returns.
std::string site_text(const ProbeRule& rule, const std::string& text) {
  for (const std::string_view entry : {"kprobe:", "uprobe:"}) {
    if (rule.returns && text.starts_with(entry))
      return fmt::format("{}ret{}", entry[0], std::string_view(text).substr(1));
  }
  return text;
}

Result<PlannedSite> plan_site(const std::string& text, const ProbedKernel& guest) {
  VMSIGHT_TRY(const Site site, parse_site(text));
  ProbeSite found{.user = site.user, .at_return = site.at_return};
  if (!site.user) {
    VMSIGHT_TRY(const auto sites, find_kernel_sites(guest.kernel, site));
    if (!sites.empty()) found = sites.front();
  }
  return PlannedSite{.text = text,
                     .plan = plan_function(guest.kernel, guest.reader, found),
                     .at_return = site.at_return,
                     .fields = {}};
}

/// Of fields that the function cannot have: why the first cannot be had.
std::optional<Error> add_fields(const ProbeRule& rule, const ProbedKernel& guest,
                                PlannedSite& site) {
  std::optional<Error> first;
  const FunctionPlan bare = site.plan;
  for (const RuleField& field : rule.fields) {
    std::vector<ProbeField> more = site.fields;
    more.push_back({field.name, field.expression.text});
    FunctionPlan grown = bare;
    if (auto done = plan_fields(guest.kernel, more, grown); !done) {
      if (first) continue;
      first = std::move(done).error();
      first->message = fmt::format("{}: {}", to_string(field.expression.place), first->message);
      continue;
    }
    site.plan = std::move(grown);
    site.fields = std::move(more);
  }
  return first;
}

bool has_argument(const PlannedSite& site, std::string_view name) {
  return std::ranges::any_of(site.plan.arguments,
                             [&](const ArgumentPlan& argument) { return argument.name == name; });
}

/// Of several sites those that the guest has. not_found if it has none of them now; unsupported if no
/// function can have one of the fields.
Result<std::vector<PlannedSite>> plan_sites(const ProbeRule& rule, const ProbedKernel& guest) {
  std::vector<PlannedSite> sites;
  std::optional<Error> missing, unfit;
  for (const std::string& text : rule.probes) {
    auto site = plan_site(site_text(rule, text), guest);
    if (!site && site.error().code == ErrorCode::not_found && rule.probes.size() > 1) {
      missing = std::move(site).error();
      continue;
    }
    if (!site) return std::move(site).error();
    if (auto wrong = add_fields(rule, guest, *site)) unfit = std::move(wrong);
    sites.push_back(*std::move(site));
  }
  if (sites.empty() && missing) return *missing;
  for (const RuleField& field : rule.fields) {
    const auto has_it = [&](const PlannedSite& site) { return has_argument(site, field.name); };
    if (!unfit || std::ranges::any_of(sites, has_it)) continue;
    unfit->code = ErrorCode::unsupported;
    return *unfit;
  }
  return sites;
}

std::vector<RecordFieldNames::Row> rows_of(const PlannedSite& site) {
  std::vector<RecordFieldNames::Row> rows;
  for (const ArgumentPlan& argument : site.plan.arguments)
    rows.emplace_back(argument.name, type_of(argument));
  if (site.plan.result && site.at_return) rows.emplace_back("retval", type_of(*site.plan.result));
  return rows;
}

/// What the engine can judge of a condition, it judges where the hit happens.
std::string filter_of(const Condition& condition, const PlannedSite& site) {
  const FilterNames names = filter_names(site.plan, site.at_return);
  return filter_of(condition, [&](std::string_view name) { return names(name).has_value(); });
}

class ProbeDetector final : public Detector {
 public:
  ProbeDetector(CompiledRule rule, std::vector<ProbeRequest> requests)
      : rule_(std::move(rule)), requests_(std::move(requests)) {}

  const CompiledRule& rule() const override { return rule_; }
  unsigned parts() const override { return 0; }
  std::uint64_t every_ns() const override { return 0; }
  std::vector<ProbeRequest> probes() const override { return requests_; }

  void look(const Look&, const Raise&) override {}
  void counted(const ProbeRequest&, std::uint64_t) override {}
  void hit(const ProbeRequest&, const ProbeEvent& event, const Raise& raise) override {
    const HitFields fields(event);
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
  std::vector<ProbeRequest> requests_;
  Memory memory_;
};

}  // namespace

Result<std::unique_ptr<FieldNames>> probe_field_names(const Rule& rule) {
  const ProbeRule& how = std::get<ProbeRule>(rule.kind);
  std::vector<RecordFieldNames::Row> rows = rows_of_hits();
  for (const std::string& text : how.probes) {
    VMSIGHT_TRY(const Site site, parse_site(text));
    static_cast<void>(site);
  }
  for (const RuleField& field : how.fields)
    rows.emplace_back(field.name, FieldType{.kind = FieldType::Kind::untyped});
  return std::unique_ptr<FieldNames>(std::make_unique<RecordFieldNames>(std::move(rows), false));
}

Result<std::unique_ptr<Detector>> make_probe_detector(const Rule& rule, const RuleSet& set,
                                                      const ProbedKernel& guest) {
  VMSIGHT_TRY(const auto sites, plan_sites(std::get<ProbeRule>(rule.kind), guest));
  std::vector<RecordFieldNames::Row> rows = rows_of_hits();
  for (const PlannedSite& site : sites) {
    const auto own = rows_of(site);
    rows.insert(rows.end(), own.begin(), own.end());
  }
  const RecordFieldNames names(std::move(rows), false);
  VMSIGHT_TRY(CompiledRule compiled, CompiledRule::compile(rule, set, names, guest.vm));
  std::vector<ProbeRequest> requests;
  for (const PlannedSite& site : sites) {
    requests.push_back({.site = site.text,
                        .filter = filter_of(compiled.condition(), site),
                        .fields = site.fields});
  }
  return std::unique_ptr<Detector>(
      std::make_unique<ProbeDetector>(std::move(compiled), std::move(requests)));
}

}  // namespace vmsight::detect
