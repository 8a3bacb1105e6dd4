#include "watch/record_fields.h"

#include <algorithm>

namespace vmsight::detect {
namespace {

constexpr std::string_view process_prefix = "proc.";

std::optional<FieldType> find_in(const std::vector<RecordFieldNames::Row>& rows,
                                 std::string_view name) {
  const auto row = std::ranges::find(rows, name, &RecordFieldNames::Row::first);
  return row == rows.end() ? std::nullopt : std::optional(row->second);
}

}  // namespace

FieldType to_field_type(ValueType type, std::string_view unit) {
  using Kind = FieldType::Kind;
  if (unit == "address" && type != ValueType::text) return {.kind = Kind::address};
  switch (type) {
    case ValueType::texts:
      return {.kind = Kind::text_list};
    case ValueType::boolean:
      return {.kind = Kind::boolean};
    case ValueType::number:
      return {.kind = Kind::number};
    case ValueType::signed_number:
    case ValueType::real:
      return {.kind = Kind::signed_number};
    case ValueType::address:
      return {.kind = Kind::address};
    case ValueType::text:
    case ValueType::other:
      break;
  }
  return {.kind = Kind::text};
}

const std::vector<RecordFieldNames::Row>& process_rows() {
  static const std::vector<RecordFieldNames::Row> rows = rows_of(kind_of<Process>());
  return rows;
}

std::optional<FieldType> RecordFieldNames::find(std::string_view name) const {
  if (auto found = find_in(own_, name)) return found;
  if (!has_process_ || !name.starts_with(process_prefix)) return std::nullopt;
  return find_in(process_rows(), name.substr(process_prefix.size()));
}

std::vector<std::string> RecordFieldNames::all() const {
  std::vector<std::string> names;
  for (const auto& [name, type] : own_) names.push_back(name);
  if (!has_process_) return names;
  for (const auto& [name, type] : process_rows())
    names.push_back(std::string(process_prefix) + name);
  return names;
}

void ValueTaker::put(Value value) {
  if (depth_ == 0) {
    value_ = std::move(value);
    return;
  }
  auto* list = std::get_if<std::vector<std::string>>(&value_);
  if (list == nullptr || depth_ != 1) return;
  if (auto* text = std::get_if<std::string>(&value)) return list->push_back(std::move(*text));
  list->push_back(show(value, {.kind = FieldType::Kind::signed_number}));
}

void ValueTaker::begin_list() {
  if (depth_++ == 0) value_ = std::vector<std::string>();
}

const Process* find_process(const State& state, std::int32_t pid) {
  const auto at = std::ranges::lower_bound(state.processes, pid, {}, &Process::pid);
  if (at != state.processes.end() && at->pid == pid) return &*at;
  const auto found = std::ranges::find(state.processes, pid, &Process::pid);
  return found == state.processes.end() ? nullptr : &*found;
}

}  // namespace vmsight::detect
