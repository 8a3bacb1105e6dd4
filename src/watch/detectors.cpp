#include "watch/detector.h"

#include <fmt/format.h>

namespace vmsight::detect {
namespace {

template <typename... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <typename... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

}  // namespace

std::string seconds_text(std::uint64_t ns) {
  return fmt::format("{:.1f}s", static_cast<double>(ns) / 1e9);
}

Result<std::unique_ptr<FieldNames>> field_names(const Rule& rule) {
  using Names = Result<std::unique_ptr<FieldNames>>;
  return std::visit(Overloaded{[&](const StateRule&) { return state_field_names(rule); },
                               [&](const Progress&) { return Names(progress_field_names(rule)); },
                               [&](const Heartbeat&) { return Names(heartbeat_field_names(rule)); },
                               [&](const Loop&) { return Names(loop_field_names()); },
                               [&](const ProbeRule&) { return probe_field_names(rule); },
                               [&](const Integrity&) { return integrity_field_names(rule); }},
                    rule.kind);
}

Result<std::unique_ptr<Detector>> make_detector(const Rule& rule, const RuleSet& set,
                                                const ProbedKernel& guest) {
  if (std::holds_alternative<ProbeRule>(
          rule.kind)) {  // its names are those of the guest's functions
    return make_probe_detector(rule, set, guest);
  }
  VMSIGHT_TRY(const auto names, field_names(rule));
  VMSIGHT_TRY(CompiledRule compiled, CompiledRule::compile(rule, set, *names, guest.vm));
  return std::visit(
      Overloaded{[&](const StateRule&) { return make_state_detector(std::move(compiled)); },
                 [&](const Progress&) { return make_progress_detector(std::move(compiled)); },
                 [&](const Heartbeat&) { return make_heartbeat_detector(std::move(compiled)); },
                 [&](const Loop&) { return make_loop_detector(std::move(compiled)); },
                 [&](const Integrity&) { return make_integrity_detector(std::move(compiled)); },
                 [&](const ProbeRule&) { return make_probe_detector(rule, set, guest); }},
      rule.kind);
}

Result<void> check_rule(const Rule& rule, const RuleSet& set) {
  VMSIGHT_TRY(const auto names, field_names(rule));
  if (std::holds_alternative<ProbeRule>(rule.kind)) {
    const ConditionContext form{.lists = &set.lists, .macros = &set.macros};
    auto condition = Condition::compile(rule.condition.text, form);
    if (condition) return {};
    Error error = std::move(condition).error();
    error.message = about(rule, rule.condition.place) + error.message;
    return error;
  }
  auto compiled = CompiledRule::compile(rule, set, *names);
  return compiled ? Result<void>() : std::move(compiled).error();
}

}  // namespace vmsight::detect
