// Records of the state as rules name them: `comm`, `uid`; of records that a process has, `proc.comm`
// is the process's.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "detect/value.h"
#include "state/records.h"

namespace vmsight::detect {

/// Fields of a rule about records: `own` and, with "proc." before them, those of processes.
class RecordFieldNames final : public FieldNames {
 public:
  using Row = std::pair<std::string, FieldType>;
  explicit RecordFieldNames(std::vector<Row> own, bool has_process)
      : own_(std::move(own)), has_process_(has_process) {}
  std::optional<FieldType> find(std::string_view name) const override;
  std::vector<std::string> all() const override;

 private:
  std::vector<Row> own_;
  bool has_process_;
};

/// Name and type of each field; those that are lists of objects are left out.
template <typename Record>
std::vector<RecordFieldNames::Row> rows_of(const Kind<Record>& kind);
/// ... of processes.
const std::vector<RecordFieldNames::Row>& process_rows();

FieldType to_field_type(ValueType type, std::string_view unit);

/// Takes one value that a record tells.
class ValueTaker final : public ValueSink {
 public:
  void null() override {}
  void boolean(bool value) override { put(value); }
  void number(std::uint64_t value) override { put(value); }
  void number(std::int64_t value) override { put(value); }
  void number(double value) override { put(static_cast<std::int64_t>(value)); }
  void text(std::string_view bytes) override { put(std::string(bytes)); }
  void begin_list() override;
  void end_list() override { --depth_; }
  void begin_object() override { ++depth_; }
  void key(std::string_view) override {}
  void end_object() override { --depth_; }

  Value take() { return std::move(value_); }

 private:
  void put(Value value);
  Value value_;
  unsigned depth_ = 0;
};

template <typename Record>
Value value_of(const Record& record, std::string_view name) {
  for (const Field<Record>& field : kind_of<Record>().fields) {
    if (field.name != name) continue;
    if (field.has != nullptr && !field.has(record)) return {};
    ValueTaker taker;
    field.put(record, taker);
    return taker.take();
  }
  return {};
}

/// What makes a record the same one in two states.
template <typename Record>
std::string identity_of(const Record& record) {
  std::string key;
  for (const Field<Record>& field : kind_of<Record>().fields) {
    if (field.order == nullptr) continue;
    ValueTaker taker;
    field.put(record, taker);
    append_key(key, taker.take());
  }
  return key;
}

/// Of what would be a change of it.
template <typename Record>
std::string changing_of(const Record& record) {
  std::string key;
  for (const Field<Record>& field : kind_of<Record>().fields) {
    if (field.changed == nullptr) continue;
    ValueTaker taker;
    field.put(record, taker);
    append_key(key, taker.take());
  }
  return key;
}

template <typename Record>
std::vector<RecordFieldNames::Row> rows_of(const Kind<Record>& kind) {
  std::vector<RecordFieldNames::Row> rows;
  for (const Field<Record>& field : kind.fields) {
    if (field.type == ValueType::other) continue;
    rows.emplace_back(field.name, to_field_type(field.type, field.unit));
  }
  return rows;
}

/// The process with this PID; nullptr if the state has none. Processes are in ascending order of PID.
const Process* find_process(const State& state, std::int32_t pid);

}  // namespace vmsight::detect
