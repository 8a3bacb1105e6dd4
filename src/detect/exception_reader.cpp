// Exceptions of rules, as Falco writes them.
#include <fmt/format.h>
#include <algorithm>

#include "detect/comparison.h"
#include "detect/rule_reader.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

using Need = YamlKeys::Need;

bool is_one_list(const Exception& exception) {
  if (exception.fields.size() != 1 || exception.comps.size() != 1) return false;
  const auto op = parse_operator(exception.comps.front());
  return op && takes_list(*op);
}

/// Of one field that is `in` values, all rows are one list.
void join_rows(Exception& exception) {
  if (!is_one_list(exception) || exception.values.empty()) return;
  Exception::Operand all{.is_list = true};
  for (const auto& row : exception.values) {
    for (const auto& operand : row) {
      all.items.insert(all.items.end(), operand.items.begin(), operand.items.end());
    }
  }
  exception.values = {{std::move(all)}};
}

std::optional<Exception::Operand> read_operand(const YamlNode& node) {
  if (auto text = scalar_text(node)) return Exception::Operand{{*std::move(text)}, false};
  auto texts = scalar_texts(node);
  if (!texts) return std::nullopt;
  return Exception::Operand{*std::move(texts), true};
}

/// A row for each value; one that is no list is a row of one.
std::optional<std::vector<Exception::Operand>> read_row(const YamlNode& node) {
  std::vector<Exception::Operand> row;
  if (node.kind != YamlNode::Kind::sequence) {
    auto operand = read_operand(node);
    if (!operand) return std::nullopt;
    row.push_back(*std::move(operand));
    return row;
  }
  for (const YamlNode& item : node.items) {
    auto operand = read_operand(item);
    if (!operand) return std::nullopt;
    row.push_back(*std::move(operand));
  }
  return row;
}

void read_values(YamlKeys& keys, Exception& exception) {
  const YamlNode* values = keys.take("values");
  if (values == nullptr || values->kind == YamlNode::Kind::null) return;
  if (values->kind != YamlNode::Kind::sequence) {
    keys.refuse("values", "a list was expected");
    return;
  }
  for (const YamlNode& value : values->items) {
    auto row = read_row(value);
    const std::size_t width = exception.fields.size();
    if (!row || row->empty() || (width != 0 && row->size() != width)) {
      keys.refuse("values", fmt::format("a row in line {} needs one value for each of its fields",
                                        value.line));
      return;
    }
    exception.values.push_back(*std::move(row));
  }
}

/// A list of fields is compared by =, one field alone by `in`, if nothing else is said.
void read_comparisons(YamlKeys& keys, Exception& exception) {
  const YamlNode* fields = keys.take("fields");
  const bool is_alone = fields != nullptr && fields->kind == YamlNode::Kind::scalar;
  auto comps = keys.text_or_texts("comps", Need::optional);
  exception.comps = comps
                        ? *std::move(comps)
                        : std::vector<std::string>(exception.fields.size(), is_alone ? "in" : "=");
  for (const std::string& word : exception.comps) {
    const auto op = parse_operator(word);
    if (op && *op != Operator::exists) continue;
    keys.refuse(
        "comps", fmt::format("\"{}\" is no comparison", escape_bytes(word.substr(0, 80))),
        "write =, !=, <, <=, >, >=, in, intersects, contains, startswith, endswith or glob");
  }
  if (!exception.comps.empty() && exception.comps.size() != exception.fields.size()) {
    keys.refuse("comps", "there must be as many as fields");
  }
}

std::optional<Exception> read_exception(const YamlNode& node, const std::string& file,
                                        RuleItem item, const YamlReport& report) {
  if (node.kind != YamlNode::Kind::map) {
    report(node.line, "key \"exceptions\": each of them needs name, fields and values", "");
    return std::nullopt;
  }
  YamlKeys keys(node, "exceptions", report);
  Exception made{.place = {file, node.line}};
  made.name = keys.text("name", Need::required).value_or("");
  const Need need = item == RuleItem::definition ? Need::required : Need::optional;
  made.fields = keys.text_or_texts("fields", need).value_or(std::vector<std::string>());
  read_comparisons(keys, made);
  read_values(keys, made);
  keys.finish();
  join_rows(made);
  return made;
}

Exception* find_exception(std::vector<Exception>& exceptions, const std::string& name) {
  const auto same = std::find_if(exceptions.begin(), exceptions.end(),
                                 [&](const Exception& one) { return one.name == name; });
  return same == exceptions.end() ? nullptr : &*same;
}

Error wrong_exception(const Exception& exception, std::string_view why) {
  return {.code = ErrorCode::usage,
          .message = fmt::format("exception \"{}\": {}", escape_bytes(exception.name), why)};
}

}  // namespace

std::optional<std::vector<Exception>> read_exceptions(YamlKeys& keys, const std::string& file,
                                                      RuleItem item) {
  const YamlNode* list = keys.take("exceptions");
  if (list == nullptr || list->kind == YamlNode::Kind::null) return std::nullopt;
  if (list->kind != YamlNode::Kind::sequence) {
    keys.refuse("exceptions", "a list was expected");
    return std::nullopt;
  }
  std::vector<Exception> made;
  for (const YamlNode& node : list->items) {
    auto one = read_exception(node, file, item, keys.report());
    if (!one) continue;
    if (find_exception(made, one->name) != nullptr) {
      keys.refuse("exceptions", fmt::format("two are called \"{}\"", escape_bytes(one->name)));
    }
    made.push_back(*std::move(one));
  }
  return made;
}

Result<void> append_exceptions(std::vector<Exception>& exceptions,
                               const std::vector<Exception>& added) {
  for (const Exception& one : added) {
    Exception* known = find_exception(exceptions, one.name);
    if (known == nullptr) {
      if (one.fields.empty()) return wrong_exception(one, "it is new, and needs fields");
      exceptions.push_back(one);
      continue;
    }
    const bool is_other =
        !one.fields.empty() && (one.fields != known->fields || one.comps != known->comps);
    if (is_other) return wrong_exception(one, "it has other fields or comps already");
    for (const auto& row : one.values) {
      if (row.size() != known->fields.size()) {
        return wrong_exception(one, "a row needs one value for each of its fields");
      }
      known->values.push_back(row);
    }
    join_rows(*known);
  }
  return {};
}

}  // namespace vmsight::detect
