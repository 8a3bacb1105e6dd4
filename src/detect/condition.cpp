#include "detect/condition.h"

#include <fmt/format.h>
#include <algorithm>

#include "detect/condition_parser.h"
#include "detect/condition_program.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

Error with_prefix(std::string prefix, Error error) {
  error.code = ErrorCode::usage;
  error.message = std::move(prefix) + error.message;
  return error;
}

// ---- evaluation ----

class Evaluation {
 public:
  Evaluation(const ConditionProgram& program, const Fields& fields, Memory* memory,
             std::uint64_t now_ns)
      : program_(program), fields_(fields), memory_(memory), now_ns_(now_ns) {}

  /// As deep as the condition is nested.
  bool holds_at(std::uint32_t index) const {
    const ConditionNode& node = program_.nodes[index];
    const auto one = [&](std::uint32_t child) { return holds_at(child); };
    const auto& children = node.children;
    switch (node.kind) {
      case NodeKind::all:
        return std::all_of(children.begin(), children.end(), one);
      case NodeKind::any:
        return std::any_of(children.begin(), children.end(), one);
      case NodeKind::negate:
        return !holds_at(children.front());
      case NodeKind::comparison: {
        const Comparison& comparison = program_.comparisons[node.index];
        return holds(comparison, fields_.get(comparison.name));
      }
      case NodeKind::count:
        return holds_count(program_.counts[node.index]);
    }
    return false;
  }

 private:
  bool holds_count(const ConditionCount& count) const {
    std::string key;
    for (const std::string& name : count.keys) {
      const Value value = fields_.get(name);
      if (memory_ == nullptr || is_absent(value)) return false;
      append_key(key, value);
    }
    return compare<std::uint64_t>(count.op, memory_->count(count.window, key, now_ns_),
                                  count.number);
  }

  const ConditionProgram& program_;
  const Fields& fields_;
  Memory* memory_;
  std::uint64_t now_ns_;
};

// ---- what must hold ----

/// The constant as filters write it; nullopt if they cannot.
std::optional<std::string> filter_constant(const Comparison& comparison) {
  constexpr std::size_t longest = 1024;  // half a filter and more would be this text
  const auto kind = comparison.type.kind;
  if (kind == FieldType::Kind::text) {
    const std::string& text = comparison.texts.front();
    const char quote = text.find('"') == text.npos ? '"' : '\'';
    if (text.size() > longest || text.find(quote) != text.npos) return std::nullopt;
    return quote + text + quote;
  }
  if (kind == FieldType::Kind::boolean || kind == FieldType::Kind::text_list) return std::nullopt;
  const bool is_int = !comparison.ints.empty();
  const std::uint64_t bits = is_int ? comparison.ints.front() : comparison.numbers.front();
  return is_int || kind == FieldType::Kind::signed_number
             ? fmt::format("{}", static_cast<std::int64_t>(bits))
             : fmt::format("{}", bits);
}

std::optional<ConditionTerm> filter_term(const Comparison& comparison) {
  const bool is_equality = comparison.op == Operator::equal || comparison.op == Operator::unequal;
  const bool is_text = comparison.type.kind == FieldType::Kind::text;
  if (!is_comparison(comparison.op) || (is_text && !is_equality)) return std::nullopt;
  if (comparison.name.find('[') != std::string::npos) return std::nullopt;
  const auto constant = filter_constant(comparison);
  if (!constant) return std::nullopt;
  return ConditionTerm{comparison.name, fmt::format("{} {} {}", comparison.name,
                                                    to_string(comparison.op), *constant)};
}

/// Adds the terms at and below the node. False at a count(): what follows it must not be looked at
/// earlier than it is.
bool collect_terms(const ConditionProgram& program, std::uint32_t index,
                   std::vector<ConditionTerm>& terms) {
  const ConditionNode& node = program.nodes[index];
  if (node.kind == NodeKind::count) return false;
  if (node.kind == NodeKind::comparison) {
    if (auto term = filter_term(program.comparisons[node.index])) terms.push_back(*std::move(term));
  }
  if (node.kind != NodeKind::all) return true;
  return std::all_of(node.children.begin(), node.children.end(),
                     [&](std::uint32_t child) { return collect_terms(program, child, terms); });
}

// ---- exceptions ----

Result<std::uint32_t> exception_term(const Exception& exception, std::size_t column,
                                     const Exception::Operand& operand, ConditionBuilder& builder) {
  const std::string& word = exception.comps[column];
  const auto op = parse_operator(word);
  if (!op || *op == Operator::exists) {
    return Error{.code = ErrorCode::usage,
                 .message = fmt::format("'{}' is no comparison", escape_bytes(word))};
  }
  if (operand.is_list && !takes_list(*op)) {
    return Error{.code = ErrorCode::usage,
                 .message = fmt::format("'{}' takes one value, not a list", word)};
  }
  std::vector<std::string> values;
  for (const std::string& item : operand.items) {
    if (takes_list(*op) && !operand.is_list) {
      VMSIGHT_TRY(auto list, parse_list(item, builder));
      if (list) return builder.comparison(exception.fields[column], *op, *list);
    }
    VMSIGHT_TRY_VOID(builder.add_item(item, takes_list(*op), values));
  }
  return builder.comparison(exception.fields[column], *op, values);
}

Result<std::vector<std::uint32_t>> exception_rows(const Exception& exception,
                                                  ConditionBuilder& builder) {
  std::vector<std::uint32_t> rows;
  for (const auto& row : exception.values) {
    std::vector<std::uint32_t> terms;
    for (std::size_t i = 0; i < row.size(); ++i) {
      VMSIGHT_TRY(const std::uint32_t term, exception_term(exception, i, row[i], builder));
      terms.push_back(term);
    }
    VMSIGHT_TRY(const std::uint32_t all, builder.join(NodeKind::all, std::move(terms)));
    rows.push_back(all);
  }
  return rows;
}

/// Fields are looked at even if there is nothing yet to compare them with.
Result<void> check(const Exception& exception, const FieldNames* names) {
  const std::size_t width = exception.fields.size();
  const bool is_even = width != 0 && exception.comps.size() == width &&
                       std::all_of(exception.values.begin(), exception.values.end(),
                                   [&](const auto& row) { return row.size() == width; });
  if (!is_even) {
    return Error{.code = ErrorCode::usage,
                 .message = "each row of values needs one for each of the fields"};
  }
  for (const std::string& field : exception.fields) {
    if (auto type = type_of(field, names); !type) return std::move(type).error();
  }
  return {};
}

}  // namespace

Condition::Condition(std::shared_ptr<const ConditionProgram> program)
    : program_(std::move(program)) {}

Result<Condition> Condition::compile(std::string_view text, const ConditionContext& context) {
  if (text.find_first_not_of(" \t\r\n") == text.npos) return Condition();
  auto program = std::make_shared<ConditionProgram>();
  ConditionBuilder builder(context, *program);
  auto root = parse_condition(text, builder);
  if (!root) return with_prefix("condition: ", std::move(root).error());
  program->root = *root;
  return Condition(std::move(program));
}

Result<Condition> Condition::compile(std::span<const Exception> exceptions,
                                     const ConditionContext& context) {
  auto program = std::make_shared<ConditionProgram>();
  ConditionBuilder builder(context, *program);
  std::vector<std::uint32_t> any;
  for (const Exception& exception : exceptions) {
    const std::string prefix = fmt::format("exception \"{}\": ", escape_bytes(exception.name));
    auto checked = check(exception, context.names);
    if (!checked) return with_prefix(prefix, std::move(checked).error());
    auto rows = exception_rows(exception, builder);
    if (!rows) return with_prefix(prefix, std::move(rows).error());
    any.insert(any.end(), rows->begin(), rows->end());
  }
  VMSIGHT_TRY(program->root, builder.join(NodeKind::any, std::move(any)));
  return Condition(std::move(program));
}

bool Condition::evaluate(const Fields& fields, Memory* memory, std::uint64_t now_ns) const {
  if (program_ == nullptr) return true;
  return Evaluation(*program_, fields, memory, now_ns).holds_at(program_->root);
}

bool Condition::remembers() const { return program_ != nullptr && !program_->counts.empty(); }

std::vector<ConditionTerm> Condition::terms() const {
  std::vector<ConditionTerm> terms;
  if (program_ != nullptr) collect_terms(*program_, program_->root, terms);
  return terms;
}

std::vector<std::string> Condition::fields() const {
  std::vector<std::string> names;
  if (program_ == nullptr) return names;
  const auto add = [&](const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  for (const Comparison& comparison : program_->comparisons) add(comparison.name);
  for (const ConditionCount& count : program_->counts) {
    for (const std::string& key : count.keys) add(key);
  }
  return names;
}

}  // namespace vmsight::detect
