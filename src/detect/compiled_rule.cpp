#include "detect/compiled_rule.h"

#include <algorithm>

#include "detect/comparison.h"

namespace vmsight::detect {
namespace {

Error about_rule(const Rule& rule, const Place& place, Error error) {
  error.code = ErrorCode::usage;
  error.message = about(rule, place) + error.message;
  return error;
}

/// As records of the state tell them: addresses are texts.
Value told(Value value, const FieldType& type) {
  const bool is_address = type.kind == FieldType::Kind::address && !is_absent(value);
  return is_address ? Value(show(value, type)) : std::move(value);
}

constexpr std::string_view vm_field = "vm";

class NamesWithVm final : public FieldNames {
 public:
  explicit NamesWithVm(const FieldNames& names) : names_(names) {}
  std::optional<FieldType> find(std::string_view name) const override {
    return name == vm_field ? FieldType{.kind = FieldType::Kind::text} : names_.find(name);
  }
  std::vector<std::string> all() const override {
    std::vector<std::string> names = names_.all();
    names.emplace_back(vm_field);
    return names;
  }

 private:
  const FieldNames& names_;
};

class FieldsWithVm final : public Fields {
 public:
  FieldsWithVm(const Fields& fields, const std::string& vm) : fields_(fields), vm_(vm) {}
  Value get(std::string_view name) const override {
    return name == vm_field ? Value(vm_) : fields_.get(name);
  }

 private:
  const Fields& fields_;
  const std::string& vm_;
};

}  // namespace

Result<CompiledRule> CompiledRule::compile(Rule rule, const RuleSet& set, const FieldNames& own,
                                           std::string vm) {
  CompiledRule made;
  made.vm_ = std::move(vm);
  const NamesWithVm names(own);
  const ConditionContext context = set.context(names);
  auto condition = Condition::compile(rule.condition.text, context);
  if (!condition) return about_rule(rule, rule.condition.place, std::move(condition).error());
  auto exceptions = Condition::compile(rule.exceptions, context);
  if (!exceptions) return about_rule(rule, rule.place, std::move(exceptions).error());
  auto output = OutputTemplate::compile(rule.output.text, names);
  if (!output) return about_rule(rule, rule.output.place, std::move(output).error());
  made.condition_ = *std::move(condition);
  made.exceptions_ = *std::move(exceptions);
  made.output_ = *std::move(output);
  made.rule_ = std::move(rule);
  if (auto fields = made.gather_fields(names); !fields) {
    return about_rule(made.rule_, made.rule_.place, std::move(fields).error());
  }
  return made;
}

Result<void> CompiledRule::gather_fields(const FieldNames& names) {
  fields_ = output_.fields();
  std::vector<std::string> others = condition_.fields();
  const std::vector<std::string> excepted = exceptions_.fields();
  others.insert(others.end(), excepted.begin(), excepted.end());
  if (rule_.limit) others.insert(others.end(), rule_.limit->key.begin(), rule_.limit->key.end());
  for (const std::string& name : others) {
    const auto same = [&](const OutputTemplate::Named& one) { return one.name == name; };
    if (std::any_of(fields_.begin(), fields_.end(), same)) continue;
    VMSIGHT_TRY(const FieldType type, type_of(name, &names));
    fields_.push_back({name, type});
  }
  return {};
}

bool CompiledRule::matches(const Fields& own, Memory& memory, std::uint64_t now_ns) const {
  const FieldsWithVm fields(own, vm_);
  const auto is_excepted = [&] {
    return !rule_.exceptions.empty() && exceptions_.evaluate(fields);
  };
  if (condition_.remembers() && is_excepted()) return false;
  if (!condition_.evaluate(fields, &memory, now_ns)) return false;
  return condition_.remembers() || !is_excepted();
}

Alarm CompiledRule::alarm(const Fields& own, std::uint64_t time_ns) const {
  const FieldsWithVm fields(own, vm_);
  Alarm alarm{.rule = rule_.name,
              .priority = rule_.priority,
              .tags = rule_.tags,
              .vm = vm_,
              .time_ns = time_ns,
              .output = output_.render(fields),
              .first_ns = time_ns,
              .last_ns = time_ns};
  for (const auto& [name, type] : fields_) {
    alarm.fields.emplace_back(name, told(fields.get(name), type));
  }
  return alarm;
}

std::string CompiledRule::limit_key(const Fields& own) const {
  const FieldsWithVm fields(own, vm_);
  std::string key;
  if (!rule_.limit) return key;
  for (const std::string& name : rule_.limit->key) append_key(key, fields.get(name));
  return key;
}

}  // namespace vmsight::detect
