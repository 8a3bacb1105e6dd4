// Makes a ConditionProgram of the text of a condition. condition.h has the grammar.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "detect/condition.h"
#include "detect/condition_program.h"

namespace vmsight::detect {

/// Adds nodes to a program, within the bounds of Condition.
class ConditionBuilder {
 public:
  ConditionBuilder(const ConditionContext& context, ConditionProgram& program)
      : context_(context), program_(program) {}

  const FieldNames* names() const { return context_.names; }
  const std::vector<std::string>* find_list(std::string_view name) const;
  const PlacedText* find_macro(std::string_view name) const;
  /// usage, if a list or macro is called so that is wrong itself.
  Result<void> check_broken(std::string_view name) const;
  const ConditionContext& context() const { return context_; }

  Result<std::uint32_t> comparison(std::string_view field, Operator op,
                                   const std::vector<std::string>& values);
  Result<std::uint32_t> count(ConditionCount count);
  /// Of one child, that itself.
  Result<std::uint32_t> join(NodeKind kind, std::vector<std::uint32_t> children);
  Result<std::uint32_t> negate(std::uint32_t child);
  /// Takes them from what all texts together, macros as often as they are named, may have.
  Result<void> use_text(std::size_t bytes);
  /// The value, or the items of the list that is called so.
  Result<void> add_item(std::string_view item, bool may_be_list, std::vector<std::string>& values);

 private:
  Result<std::uint32_t> add(ConditionNode node);

  const ConditionContext& context_;
  ConditionProgram& program_;
  std::size_t text_used_ = 0, values_used_ = 0;
};

/// The node of all of the text.
Result<std::uint32_t> parse_condition(std::string_view text, ConditionBuilder& builder);

/// "(a, 'b c', LIST)" as what follows `in`, or nullopt if the text does not begin so.
Result<std::optional<std::vector<std::string>>> parse_list(std::string_view text,
                                                           ConditionBuilder& builder);

}  // namespace vmsight::detect
