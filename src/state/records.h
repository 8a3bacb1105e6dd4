// Records described once: of each kind of record its fields - name, unit, meaning, how the value is
// told, what makes a record the same one in two states, and what counts as a change of it.
//
// JSON, CSV, the change feed and the reference in docs/json.md are derived from these tables. A
// new kind: a structure and a vector in State, a Part, a table (table_mounts.cpp is one), and a
// line in each_kind().
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "vmsight/state.h"

namespace vmsight {

/// Takes values one after the other. A list has values between its begin and end, an object keys
/// that are each followed by one value.
class ValueSink {
 public:
  virtual ~ValueSink() = default;
  virtual void null() = 0;
  virtual void boolean(bool value) = 0;
  virtual void number(std::uint64_t value) = 0;
  virtual void number(std::int64_t value) = 0;
  virtual void number(double value) = 0;
  virtual void text(std::string_view bytes) = 0;  // of the guest: any bytes
  virtual void begin_list() = 0;
  virtual void end_list() = 0;
  virtual void begin_object() = 0;
  virtual void key(std::string_view name) = 0;  // of ours: nothing in it need be escaped
  virtual void end_object() = 0;
};

/// What the values of a field are, before there is one.
enum class ValueType : std::uint8_t {
  text,
  texts,
  boolean,
  number,
  signed_number,
  real,
  address,
  other,  // lists and objects
};

template <typename Record>
struct Field {
  std::string_view name;  // the key in JSON, the heading in CSV
  std::string_view
      unit;  // "bytes", "ns", "s", "KiB", "MHz", "address", "bits", "": a word, a number of something
  std::string_view meaning;  // one line
  void (*put)(const Record&, ValueSink&) = nullptr;
  /// Set: it is a part of what makes a record the same one. Negative, 0 or positive, as a and b
  /// stand to each other.
  int (*order)(const Record& a, const Record& b) = nullptr;
  /// Set: another value is a change of the record.
  bool (*changed)(const Record& a, const Record& b) = nullptr;
  /// Set: whether the record has the field at all.
  bool (*has)(const Record&) = nullptr;
  ValueType type = ValueType::other;
};

/// A kind of record, as it stands in a state.
template <typename Record>
struct Kind {
  Part part;
  std::string_view key;  // of the list in a document: "mounts"
  /// In the feed of changes: "mount", "mounted", "unmounted".
  std::string_view name, added, removed;
  std::string_view meaning;
  std::vector<Record> State::*records = nullptr;
  std::span<const Field<Record>> fields;
  bool comes_only = false;  // what is there no more has not been removed: lines of the log
};

// The tables, each in a file of its own.
const Kind<CpuInfo>& kind(const CpuInfo*);
const Kind<NetDevice>& kind(const NetDevice*);
const Kind<Module>& kind(const Module*);
const Kind<Process>& kind(const Process*);
const Kind<Thread>& kind(const Thread*);
const Kind<OpenFile>& kind(const OpenFile*);
const Kind<MemoryMap>& kind(const MemoryMap*);
const Kind<Socket>& kind(const Socket*);
const Kind<Mount>& kind(const Mount*);
const Kind<LogRecord>& kind(const LogRecord*);
const Kind<Cgroup>& kind(const Cgroup*);

template <typename Record>
const Kind<Record>& kind_of() {
  return kind(static_cast<const Record*>(nullptr));
}

/// visit(kind) for each kind, in the order of the document.
template <typename Visit>
void each_kind(Visit&& visit) {
  visit(kind_of<CpuInfo>());
  visit(kind_of<NetDevice>());
  visit(kind_of<Module>());
  visit(kind_of<Process>());
  visit(kind_of<Thread>());
  visit(kind_of<OpenFile>());
  visit(kind_of<MemoryMap>());
  visit(kind_of<Socket>());
  visit(kind_of<Mount>());
  visit(kind_of<LogRecord>());
  visit(kind_of<Cgroup>());
}

/// The keys of a document that have records or are an object of the guest ("os"), each with its part.
std::vector<std::pair<std::string_view, Part>> document_parts();
/// The part whose key the text begins with, as the `where` of a problem does; all if it is of none.
unsigned parts_named_by(std::string_view where);

// Structures within records.
std::span<const Field<NetAddress>> fields_of(const NetAddress&);
std::span<const Field<CpuCache>> fields_of(const CpuCache&);
std::span<const Field<FileFacts>> fields_of(const FileFacts&);
std::span<const Field<Socket::Memory>> fields_of(const Socket::Memory&);

template <typename Record>
void put_fields(std::span<const Field<Record>> fields, const Record& record, ValueSink& sink) {
  sink.begin_object();
  for (const Field<Record>& field : fields) {
    if (field.has != nullptr && !field.has(record)) continue;
    sink.key(field.name);
    field.put(record, sink);
  }
  sink.end_object();
}

/// How a member of a type is told.
template <typename T>
void put_value(const T& value, ValueSink& sink) {
  if constexpr (std::is_same_v<T, bool>) {
    sink.boolean(value);
  } else if constexpr (std::is_same_v<T, GuestVirt>) {
    put_address(value.raw(), sink);
  } else if constexpr (std::is_floating_point_v<T>) {
    sink.number(static_cast<double>(value));
  } else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
    sink.number(static_cast<std::int64_t>(value));
  } else if constexpr (std::is_integral_v<T>) {
    sink.number(static_cast<std::uint64_t>(value));
  } else {
    put_fields(fields_of(value), value, sink);
  }
}
inline void put_value(std::string_view value, ValueSink& sink) {
  value.data() == nullptr ? sink.null() : sink.text(value);
}
inline void put_value(char value, ValueSink& sink) { sink.text({&value, 1}); }
template <typename T>
void put_value(const std::vector<T>& values, ValueSink& sink) {
  sink.begin_list();
  for (const T& value : values) put_value(value, sink);
  sink.end_list();
}
template <typename T>
void put_value(const std::optional<T>& value, ValueSink& sink) {
  value ? put_value(*value, sink) : sink.null();
}
/// "0x7f..."
void put_hexadecimal(std::uint64_t value, ValueSink& sink);
/// The same; null if it is 0.
void put_address(std::uint64_t address, ValueSink& sink);
/// "254:1" of a kernel's dev_t.
void put_device(std::uint64_t device, ValueSink& sink);

namespace field_detail {
template <typename T>
constexpr ValueType type_of() {
  if constexpr (std::is_same_v<T, bool>) {
    return ValueType::boolean;
  } else if constexpr (std::is_same_v<T, GuestVirt>) {
    return ValueType::address;
  } else if constexpr (std::is_same_v<T, std::string_view> || std::is_same_v<T, char>) {
    return ValueType::text;
  } else if constexpr (std::is_same_v<T, std::vector<std::string_view>>) {
    return ValueType::texts;
  } else if constexpr (std::is_floating_point_v<T>) {
    return ValueType::real;
  } else if constexpr (std::is_integral_v<T>) {
    return std::is_signed_v<T> ? ValueType::signed_number : ValueType::number;
  } else if constexpr (
      requires { typename T::value_type; } && requires(const T& t) { t.has_value(); }) {
    return type_of<typename T::value_type>();
  } else {
    return ValueType::other;
  }
}
template <typename T>
struct MemberOf;
template <typename R, typename T>
struct MemberOf<T R::*> {
  using Record = R;
  using Type = T;
};
template <auto member>
using RecordOf = typename MemberOf<decltype(member)>::Record;

template <auto member>
void put(const RecordOf<member>& record, ValueSink& sink) {
  put_value(record.*member, sink);
}
template <auto member>
int order(const RecordOf<member>& a, const RecordOf<member>& b) {
  return a.*member < b.*member ? -1 : b.*member < a.*member ? 1 : 0;
}
template <auto member>
bool changed(const RecordOf<member>& a, const RecordOf<member>& b) {
  return a.*member != b.*member;
}
}  // namespace field_detail

/// A member that is told as its type says.
template <auto member>
constexpr Field<field_detail::RecordOf<member>> field(std::string_view name, std::string_view unit,
                                                      std::string_view meaning) {
  using Type = typename field_detail::MemberOf<decltype(member)>::Type;
  return {.name = name,
          .unit = unit,
          .meaning = meaning,
          .put = field_detail::put<member>,
          .type = field_detail::type_of<Type>()};
}
/// ... whose other value is a change.
template <auto member>
constexpr Field<field_detail::RecordOf<member>> changing(std::string_view name,
                                                         std::string_view unit,
                                                         std::string_view meaning) {
  auto made = field<member>(name, unit, meaning);
  made.changed = field_detail::changed<member>;
  return made;
}
/// ... which tells the record from the others.
template <auto member>
constexpr Field<field_detail::RecordOf<member>> telling(std::string_view name,
                                                        std::string_view unit,
                                                        std::string_view meaning) {
  auto made = field<member>(name, unit, meaning);
  made.order = field_detail::order<member>;
  return made;
}
/// The same field, told in another way.
template <typename Record>
constexpr Field<Record> told(Field<Record> field, void (*put)(const Record&, ValueSink&),
                             ValueType type = ValueType::text) {
  field.put = put;
  field.type = type;
  return field;
}

/// As a and b stand to each other, by all that makes a record the same one.
template <typename Record>
int compare_identity(const Record& a, const Record& b) {
  for (const Field<Record>& field : kind_of<Record>().fields) {
    if (field.order == nullptr) continue;
    if (const int order = field.order(a, b); order != 0) return order;
  }
  return 0;
}

template <typename Record>
bool has_changed(const Record& a, const Record& b) {
  for (const Field<Record>& field : kind_of<Record>().fields) {
    if (field.changed != nullptr && field.changed(a, b)) return true;
  }
  return false;
}

}  // namespace vmsight
