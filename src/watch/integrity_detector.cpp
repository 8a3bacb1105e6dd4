// Rules about the kernel's integrity: a finding of one of the checks.
#include "detect/integrity/integrity.h"

#include <algorithm>
#include <map>

#include "vmsight/guest.h"
#include "watch/detector.h"
#include "watch/record_fields.h"

namespace vmsight::detect {
namespace {

using Row = std::pair<std::string, Value>;

class IntegrityDetector final : public Detector {
 public:
  explicit IntegrityDetector(CompiledRule rule)
      : rule_(std::move(rule)), how_(std::get<Integrity>(rule_.rule().kind)), names_(how_.checks) {
    if (std::ranges::find(names_, "all") != names_.end()) names_.clear();
  }

  const CompiledRule& rule() const override { return rule_; }
  unsigned parts() const override { return IntegrityChecker::parts(names_); }
  std::uint64_t every_ns() const override { return how_.every_ns; }
  std::vector<ProbeRequest> probes() const override { return {}; }
  void hit(const ProbeRequest&, const ProbeEvent&, const Raise&) override {}
  void counted(const ProbeRequest&, std::uint64_t) override {}

  /// A check that cannot be done finds nothing; `vmsight check` says why.
  void look(const Look& look, const Raise& raise) override {
    if (!checker_) {
      auto made = IntegrityChecker::create(
          look.kernel, look.reader.memory(),
          {.cache_directory = default_cache_directory(), .own_traps = [vm = look.vm] {
             return vm != nullptr ? read_own_traps(*vm) : std::vector<OwnTrap>();
           }});
      if (!made) return;
      checker_ = *std::move(made);
    }
    const auto found = checker_->run(names_, &look.state);
    if (!found) return;
    for (const Finding& finding : found->findings) tell(finding, look, raise);
    for (const CheckReport& report : found->reports) look_after(report, look, raise);
  }

 private:
  /// A kernel changes its code for a moment. One that seems to do it for long hides from the check.
  void look_after(const CheckReport& report, const Look& look, const Raise& raise) {
    if (!report.changing) {
      changing_since_ns_.erase(std::string(report.check));
      return;
    }
    const auto [since, is_new] =
        changing_since_ns_.try_emplace(std::string(report.check), look.guest_ns);
    if (look.guest_ns < since->second) since->second = look.guest_ns;
    if (look.guest_ns - since->second < longest_change_ns) return;
    tell({.check = report.check,
          .what = "the kernel holds a lock under which it changes its code, so that findings are "
                  "not told from changes",
          .object = "lock",
          .sources = {"text_mutex and the like"},
          .sureness = Sureness::likely,
          .address = {},
          .pid = {}},
         look, raise);
  }

  static std::string object_of(const Finding& finding) {
    return std::string(finding.check) + " " + finding.object;
  }

  void tell(const Finding& finding, const Look& look, const Raise& raise) {
    const FieldValues fields(
        {Row{"check", Value(std::string(finding.check))}, Row{"what", Value(finding.what)},
         Row{"object", Value(finding.object)},
         Row{"sureness", Value(std::string(vmsight::to_string(finding.sureness)))},
         Row{"address", finding.address ? Value(finding.address->raw()) : Value()},
         Row{"pid", finding.pid ? Value(std::int64_t{*finding.pid}) : Value()}});
    if (!rule_.matches(fields, memory_, look.guest_ns)) return;
    raise({.fields = fields,
           .pid = finding.pid.value_or(0),
           .object = object_of(finding),
           .evidence = {{"sources", finding.sources}}});
  }

  CompiledRule rule_;
  Integrity how_;
  std::vector<std::string> names_;  // none: all
  Memory memory_;
  static constexpr std::uint64_t longest_change_ns = 60'000'000'000;
  std::map<std::string, std::uint64_t> changing_since_ns_;  // of checks; the guest's running time
  std::unique_ptr<IntegrityChecker> checker_;
};

}  // namespace

Result<std::unique_ptr<FieldNames>> integrity_field_names(const Rule& rule) {
  for (const std::string& name : std::get<Integrity>(rule.kind).checks) {
    const auto checks = integrity_checks();
    if (name == "all" || std::ranges::find(checks, name, &CheckInfo::name) != checks.end())
      continue;
    return Error{
        .code = ErrorCode::usage,
        .message = about(rule, rule.place) + "integrity: no check is called \"" + name + "\"",
        .hint = "`vmsight check --list` lists them"};
  }
  return std::unique_ptr<FieldNames>(std::make_unique<RecordFieldNames>(
      std::vector<RecordFieldNames::Row>{{"check", {.kind = FieldType::Kind::text}},
                                         {"what", {.kind = FieldType::Kind::text}},
                                         {"object", {.kind = FieldType::Kind::text}},
                                         {"sureness", {.kind = FieldType::Kind::text}},
                                         {"address", {.kind = FieldType::Kind::address}},
                                         {"pid", {.kind = FieldType::Kind::signed_number}}},
      false));
}

Result<std::unique_ptr<Detector>> make_integrity_detector(CompiledRule rule) {
  return std::unique_ptr<Detector>(std::make_unique<IntegrityDetector>(std::move(rule)));
}

}  // namespace vmsight::detect
