#include "watch/hit_fields.h"

#include <algorithm>

namespace vmsight::detect {
namespace {

Value value_of_argument(const ProbeArgument& argument) {
  if (!argument.known) return {};
  if (argument.is_text && argument.bytes) return std::string(*argument.bytes);
  if (argument.is_signed) return static_cast<std::int64_t>(argument.number);
  return argument.number;
}

}  // namespace

std::vector<RecordFieldNames::Row> rows_of_hits() {
  return {{"comm", {.kind = FieldType::Kind::text}},
          {"function", {.kind = FieldType::Kind::text}},
          {"pid", {.kind = FieldType::Kind::signed_number, .bits = 32}},
          {"tgid", {.kind = FieldType::Kind::signed_number, .bits = 32}},
          {"cpu", {.kind = FieldType::Kind::number, .bits = 32}},
          {"duration_ns", {.kind = FieldType::Kind::number}}};
}

Value HitFields::get(std::string_view name) const {
  const ProbeHit& hit = event_.hit;
  if (name == "comm") return std::string(hit.task.name());
  if (name == "tgid") return std::int64_t{hit.task.tgid};
  if (name == "pid") return std::int64_t{hit.task.pid};
  if (name == "cpu") return std::uint64_t{hit.vcpu};
  if (name == "function") return std::string(event_.function);
  if (name == "duration_ns") return hit.at_return ? Value(hit.duration_ns) : Value();
  if (name == "retval") return event_.result ? value_of_argument(*event_.result) : Value();
  for (const ProbeArgument& argument : event_.arguments) {
    if (argument.name == name) return value_of_argument(argument);
  }
  return {};
}

std::string filter_of(const Condition& condition,
                      const std::function<bool(std::string_view name)>& knows) {
  constexpr std::size_t most = 12;     // terms, and
  constexpr std::size_t longest = 60;  // bytes of one: engines have not much room for texts
  constexpr std::string_view of_every_hit[] = {"pid", "tgid", "comm", "cpu"};
  std::string filter;
  std::size_t count = 0;
  for (const ConditionTerm& term : condition.terms()) {
    const bool known =
        std::ranges::find(of_every_hit, term.name) != std::end(of_every_hit) || knows(term.name);
    if (!known || term.text.size() > longest || count++ == most) continue;
    filter += filter.empty() ? term.text : " && " + term.text;
  }
  return filter;
}

}  // namespace vmsight::detect
