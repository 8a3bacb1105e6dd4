// One comparison of a field with constants: what makes sense, and whether it holds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "detect/value.h"
#include "vmsight/result.h"

namespace vmsight::detect {

enum class Operator : std::uint8_t {
  equal,
  unequal,
  less,
  less_equal,
  greater,
  greater_equal,
  contains,
  starts_with,
  ends_with,
  glob,
  in,
  intersects,
  exists,
};
/// Of "==", "=", "contains", "startsWith" ...; nullopt for other texts.
std::optional<Operator> parse_operator(std::string_view text);
std::string_view to_string(Operator op);  // "==", "startswith"
inline bool takes_list(Operator op) { return op == Operator::in || op == Operator::intersects; }
/// == != < <= > >=
inline bool is_comparison(Operator op) { return op <= Operator::greater_equal; }

/// A comparison of a field with constants.
struct Comparison {
  std::string name;
  FieldType type;
  Operator op = Operator::equal;
  std::vector<std::string> texts;      // one, or a sorted list
  std::vector<std::uint64_t> numbers;  // the same; as many bits as the type has, signs extended
  std::vector<std::uint64_t> ints;     // of a field without a type: what may be an int
  bool truth = false;                  // of a boolean
};

/// What is wrong is said without where: "'comm' is a text, ...".
Result<Comparison> make_comparison(std::string_view name, Operator op,
                                   const std::vector<std::string>& values, const FieldNames* names);
/// The type of the field; without names any type. not_found, with the nearest names as a hint.
Result<FieldType> type_of(std::string_view name, const FieldNames* names);

/// Whether the value stands to the constants as the comparison says.
bool holds(const Comparison& comparison, const Value& value);
template <typename T>
bool compare(Operator op, const T& a, const T& b) {
  switch (op) {
    case Operator::equal:
      return a == b;
    case Operator::unequal:
      return a != b;
    case Operator::less:
      return a < b;
    case Operator::less_equal:
      return a <= b;
    case Operator::greater:
      return a > b;
    case Operator::greater_equal:
      return a >= b;
    default:
      return false;
  }
}

}  // namespace vmsight::detect
