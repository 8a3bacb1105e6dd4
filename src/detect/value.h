// What rules compare: values of fields, and what is known of fields before there is a value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace vmsight::detect {

/// A value of a field. monostate: it has none, or it could not be read. Texts are the guest's raw
/// bytes. A number may be given with or without sign, whatever the type of its field says.
using Value = std::variant<std::monostate, std::uint64_t, std::int64_t, bool, std::string,
                           std::vector<std::string>>;
inline bool is_absent(const Value& value) { return value.index() == 0; }

/// What the values of a field are.
struct FieldType {
  enum class Kind : std::uint8_t {
    text,
    text_list,
    number,  // without a sign
    signed_number,
    untyped,  // a register of which nobody knows the type
    address,  // a number that is shown as 0x...
    boolean,
  };
  Kind kind = Kind::text;
  std::uint8_t bits = 64;  // of numbers: more bits of a value are not looked at
};

/// The fields that a kind of rules can name.
class FieldNames {
 public:
  virtual ~FieldNames() = default;
  virtual std::optional<FieldType> find(std::string_view name) const = 0;
  /// For messages; names that follow a pattern may be left out.
  virtual std::vector<std::string> all() const = 0;
};

/// Fields that are known beforehand.
class FieldTable final : public FieldNames {
 public:
  using Row = std::pair<std::string, FieldType>;
  explicit FieldTable(std::vector<Row> rows) : rows_(std::move(rows)) {}
  std::optional<FieldType> find(std::string_view name) const override;
  std::vector<std::string> all() const override;

 private:
  std::vector<Row> rows_;
};

/// The values of one event or record.
class Fields {
 public:
  virtual ~Fields() = default;
  /// Of a name that FieldNames has. It is called only for what must be known, each time it must be.
  virtual Value get(std::string_view name) const = 0;
};

/// Values that are there already.
class FieldValues final : public Fields {
 public:
  using Row = std::pair<std::string, Value>;
  explicit FieldValues(std::vector<Row> rows) : rows_(std::move(rows)) {}
  Value get(std::string_view name) const override;

 private:
  std::vector<Row> rows_;
};

/// The value in a line of text, with control bytes escaped: "<NA>" if it is absent, addresses in
/// hexadecimal, lists with commas. At most `most` bytes of a text, and "..." for the others.
std::string show(const Value& value, const FieldType& type, std::size_t most = 4096);

/// A text of whoever wrote the rules: UTF-8 stays as it is, line ends and tabs become blanks, other
/// control bytes are escaped.
std::string one_line(std::string_view text);

/// Adds the value to what tells things apart: no two lists of values give the same key, but for
/// very long texts, of which the beginning and a hash are taken.
void append_key(std::string& key, const Value& value);

/// Of `known`, those most like the name, the nearest first: for "nothing is called ...".
std::vector<std::string> nearest(std::string_view name, std::vector<std::string> known,
                                 std::size_t most = 8);

}  // namespace vmsight::detect
