// Conditions of rules: the language of src/probe/filter.h, grown by what Falco's has.
//
//   either   := both { ('or' | '||') both }
//   both     := term { ('and' | '&&') term }
//   term     := ('not' | '!') term | '(' either ')' | MACRO | FIELD (a boolean)
//             | FIELD 'exists'
//             | FIELD ('==' | '=' | '!=' | '<' | '<=' | '>' | '>=') value
//             | FIELD ('contains' | 'startswith' | 'endswith' | 'glob') value
//             | FIELD ('in' | 'intersects') ( '(' [ item { ',' item } ] ')' | LIST )
//             | 'count' '(' FIELD { ',' FIELD } ',' DURATION ')' ('<' | '==' | ...) number
//   value    := 'text' | "text" | word | number, decimal or 0x...
//   item     := value | LIST
//
// Numbers are compared as their types say, as in filters. A comparison with a field that is absent
// is false, whatever it is; `not FIELD exists` asks for that. A list of texts equals, contains ...
// what one of its texts does; it is `in` a list if all of its texts are, and it is not empty.
// `glob` knows * ? [a-z] [!a-z] and \; * matches slashes, too.
//
// count(FIELD..., TIME) > N: within this time, what stands before it in the condition held more
// than N times for the same values of the fields. It stands alone between the outermost `and`s.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detect/remembered.h"
#include "detect/rule.h"
#include "detect/value.h"

namespace vmsight::detect {

struct ConditionProgram;

using Lists = std::map<std::string, std::vector<std::string>, std::less<>>;
using Macros = std::map<std::string, PlacedText, std::less<>>;
using BrokenNames = std::set<std::string, std::less<>>;

/// What names in a condition stand for. Everything must outlive the compilation only.
struct ConditionContext {
  const FieldNames* names = nullptr;  // nullptr: only the form is looked at, any field is right
  const Lists* lists = nullptr;
  const Macros* macros = nullptr;
  const BrokenNames* broken = nullptr;  // lists and macros that are defined, but wrongly
};

/// A comparison that must hold for the condition to hold, in the language of src/probe/filter.h.
struct ConditionTerm {
  std::string name;  // of the field
  std::string text;  // `pid == 12`
};

class Condition {
 public:
  static constexpr std::size_t max_text = 64 * 1024;  // bytes
  static constexpr unsigned max_nesting = 32;         // parentheses and nots, with those of macros
  static constexpr std::size_t max_nodes = 4096;      // with those of macros
  static constexpr std::size_t max_values = 65536;    // of lists
  static constexpr std::uint64_t max_count = 1000;    // count() is compared with at most this

  /// Holds always.
  Condition() = default;

  /// usage: "condition: WHY, at character N ("...")". An empty text holds always.
  static Result<Condition> compile(std::string_view text, const ConditionContext& context);
  /// Holds if one of the exceptions does. usage: "exception "x": WHY".
  static Result<Condition> compile(std::span<const Exception> exceptions,
                                   const ConditionContext& context);

  /// Never fails. A condition that remembers needs its own Memory, and the time; without one, its
  /// counts do not hold.
  bool evaluate(const Fields& fields, Memory* memory = nullptr, std::uint64_t now_ns = 0) const;
  /// It has a count().
  bool remembers() const;

  /// Comparisons of a field with a constant that must all hold, as far as the language of filters
  /// has them: an engine that evaluates them loses nothing. Whatever stands behind a count() is not
  /// among them.
  std::vector<ConditionTerm> terms() const;
  /// Fields that it names, each once.
  std::vector<std::string> fields() const;

 private:
  explicit Condition(std::shared_ptr<const ConditionProgram> program);
  std::shared_ptr<const ConditionProgram> program_;
};

/// The words that neither a macro nor a field can be called.
bool is_reserved_word(std::string_view word);

}  // namespace vmsight::detect
