#include <fmt/format.h>

#include "detect/condition_parser.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

/// Of all texts of a condition. A macro may be long, and named often.
constexpr std::size_t max_expanded = 16 * Condition::max_text;

Error too_much(std::string message) {
  return {.code = ErrorCode::usage, .message = std::move(message)};
}

}  // namespace

Result<std::uint32_t> ConditionBuilder::add(ConditionNode node) {
  if (program_.nodes.size() == Condition::max_nodes) {
    return too_much(fmt::format("with its macros it has more than {} parts", Condition::max_nodes));
  }
  program_.nodes.push_back(std::move(node));
  return static_cast<std::uint32_t>(program_.nodes.size() - 1);
}

Result<std::uint32_t> ConditionBuilder::comparison(std::string_view field, Operator op,
                                                   const std::vector<std::string>& values) {
  VMSIGHT_TRY(Comparison made, make_comparison(field, op, values, context_.names));
  program_.comparisons.push_back(std::move(made));
  const auto index = static_cast<std::uint32_t>(program_.comparisons.size() - 1);
  return add({.kind = NodeKind::comparison, .index = index});
}

Result<std::uint32_t> ConditionBuilder::count(ConditionCount count) {
  for (const std::string& key : count.keys) {
    if (auto type = type_of(key, context_.names); !type) return std::move(type).error();
  }
  const auto index = static_cast<std::uint32_t>(program_.counts.size());
  count.window.which = index;
  program_.counts.push_back(std::move(count));
  return add({.kind = NodeKind::count, .index = index});
}

Result<std::uint32_t> ConditionBuilder::join(NodeKind kind, std::vector<std::uint32_t> children) {
  if (children.size() == 1) return children.front();
  return add({.kind = kind, .children = std::move(children)});
}

Result<std::uint32_t> ConditionBuilder::negate(std::uint32_t child) {
  return add({.kind = NodeKind::negate, .children = {child}});
}

Result<void> ConditionBuilder::use_text(std::size_t bytes) {
  if (bytes > Condition::max_text) {
    return too_much(fmt::format("it has more than {} bytes", Condition::max_text));
  }
  text_used_ += bytes;
  if (text_used_ <= max_expanded) return {};
  return too_much(fmt::format("with its macros it has more than {} bytes", max_expanded));
}

const std::vector<std::string>* ConditionBuilder::find_list(std::string_view name) const {
  if (context_.lists == nullptr) return nullptr;
  const auto list = context_.lists->find(name);
  return list == context_.lists->end() ? nullptr : &list->second;
}

const PlacedText* ConditionBuilder::find_macro(std::string_view name) const {
  if (context_.macros == nullptr) return nullptr;
  const auto macro = context_.macros->find(name);
  return macro == context_.macros->end() ? nullptr : &macro->second;
}

Result<void> ConditionBuilder::check_broken(std::string_view name) const {
  if (context_.broken == nullptr || !context_.broken->contains(name)) return {};
  return Error{.code = ErrorCode::usage,
               .message = fmt::format("'{}' has errors of its own", escape_bytes(name))};
}

Result<void> ConditionBuilder::add_item(std::string_view item, bool may_be_list,
                                        std::vector<std::string>& values) {
  if (may_be_list) VMSIGHT_TRY_VOID(check_broken(item));
  const std::vector<std::string>* list = may_be_list ? find_list(item) : nullptr;
  values_used_ += list != nullptr ? list->size() : 1;
  if (values_used_ > Condition::max_values) {
    return too_much(fmt::format("its lists have more than {} values", Condition::max_values));
  }
  if (list == nullptr) {
    values.emplace_back(item);
  } else {
    values.insert(values.end(), list->begin(), list->end());
  }
  return {};
}

}  // namespace vmsight::detect
