#include "detect/comparison.h"

#include <fmt/format.h>
#include <algorithm>
#include <charconv>

#include "detect/glob.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

using FieldKind = FieldType::Kind;

struct OperatorName {
  std::string_view text;
  Operator op;
};
/// The first of each is the one that is shown.
constexpr OperatorName operators[] = {
    {"==", Operator::equal},
    {"=", Operator::equal},
    {"!=", Operator::unequal},
    {"<", Operator::less},
    {"<=", Operator::less_equal},
    {">", Operator::greater},
    {">=", Operator::greater_equal},
    {"contains", Operator::contains},
    {"startswith", Operator::starts_with},
    {"startsWith", Operator::starts_with},
    {"endswith", Operator::ends_with},
    {"endsWith", Operator::ends_with},
    {"glob", Operator::glob},
    {"in", Operator::in},
    {"intersects", Operator::intersects},
    {"exists", Operator::exists},
};

bool is_text(FieldKind kind) { return kind == FieldKind::text || kind == FieldKind::text_list; }

/// What can be asked of a field, for people.
struct Abilities {
  std::string_view what, operators;
};
Abilities abilities(FieldKind kind) {
  switch (kind) {
    case FieldKind::text:
      return {"a text", "== != in contains startswith endswith glob exists"};
    case FieldKind::text_list:
      return {"a list of texts", "== != in intersects contains startswith endswith glob exists"};
    case FieldKind::boolean:
      return {"true or false", "== != exists, or it stands alone"};
    default:
      return {"a number", "== != < <= > >= in exists"};
  }
}

bool is_allowed(FieldKind kind, Operator op) {
  const bool equality = op == Operator::equal || op == Operator::unequal;
  if (equality || op == Operator::exists) return true;
  if (kind == FieldKind::boolean) return false;
  if (op == Operator::in) return true;
  if (op == Operator::intersects) return kind == FieldKind::text_list;
  return is_text(kind) != is_comparison(op);
}

Error wrong(std::string message) {
  return {.code = ErrorCode::usage, .message = std::move(message)};
}

struct Number {
  std::uint64_t value = 0;  // without its sign
  bool negative = false, hexadecimal = false;
  std::uint64_t bits() const { return negative ? 0 - value : value; }
};

Result<Number> parse_number(std::string_view text) {
  Number number{.negative = text.starts_with('-')};
  std::string_view digits = text.substr(number.negative ? 1 : 0);
  number.hexadecimal = digits.starts_with("0x");
  if (number.hexadecimal) digits.remove_prefix(2);
  const char* const last = digits.data() + digits.size();
  const auto [end, error] =
      std::from_chars(digits.data(), last, number.value, number.hexadecimal ? 16 : 10);
  if (error != std::errc() || end != last) {
    return wrong(fmt::format("'{}' is not a number", escape_bytes(text.substr(0, 40))));
  }
  return number;
}

std::uint64_t extend(std::uint64_t bits, const FieldType& type) {
  const unsigned unused = 64 - std::clamp<unsigned>(type.bits, 1, 64);
  if (type.kind != FieldKind::signed_number) return bits << unused >> unused;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(bits << unused) >> unused);
}

/// What the type of the field makes of the number, by the rules of filters (src/probe/filter.h).
Result<std::uint64_t> fit(const Comparison& comparison, const Number& number) {
  const bool is_signed = comparison.type.kind == FieldKind::signed_number;
  const unsigned bits = std::clamp<unsigned>(comparison.type.bits, 1, 64);
  const std::uint64_t most = ~0ULL >> (64 - bits), most_signed = most >> 1;
  const bool fits = number.negative ? is_signed && number.value <= most_signed + 1
                                    : number.value <= (is_signed ? most_signed : most);
  if (fits) {
    if (is_signed || comparison.op != Operator::less || number.value != 0) return number.bits();
    return wrong(
        fmt::format("'{}' has no sign, it is never below 0", escape_bytes(comparison.name)));
  }
  const bool is_pattern = number.negative ? !is_signed && number.value <= most_signed + 1
                                          : number.hexadecimal && number.value <= most;
  const bool is_order = is_comparison(comparison.op) && comparison.op > Operator::unequal;
  if (is_order || !is_pattern) {
    return wrong(fmt::format("'{}' is a number of {} bits {} a sign, which is never that",
                             escape_bytes(comparison.name), bits, is_signed ? "with" : "without"));
  }
  return extend(number.bits(), comparison.type);
}

Result<void> add_number(Comparison& comparison, std::string_view text) {
  VMSIGHT_TRY(const Number number, parse_number(text));
  if (comparison.type.kind != FieldKind::untyped) {
    VMSIGHT_TRY(const std::uint64_t bits, fit(comparison, number));
    comparison.numbers.push_back(bits);
    return {};
  }
  const bool is_order = is_comparison(comparison.op) && comparison.op > Operator::unequal;
  const bool may_be_int = number.negative || (number.value == 0 && is_order);
  (may_be_int ? comparison.ints : comparison.numbers).push_back(number.bits());
  return {};
}

Result<void> set_truth(Comparison& comparison, std::string_view text) {
  if (text != "true" && text != "false") {
    return wrong(fmt::format("'{}' is true or false, never '{}'", escape_bytes(comparison.name),
                             escape_bytes(text.substr(0, 40))));
  }
  comparison.truth = text == "true";
  return {};
}

Result<void> add_value(Comparison& comparison, const std::string& value) {
  if (comparison.type.kind == FieldKind::boolean) return set_truth(comparison, value);
  if (!is_text(comparison.type.kind)) return add_number(comparison, value);
  if (comparison.op == Operator::glob && value.size() > max_pattern) {
    return wrong(fmt::format("a pattern has at most {} bytes", max_pattern));
  }
  comparison.texts.push_back(value);
  return {};
}

template <typename T>
void sort_unique(std::vector<T>& list) {
  std::sort(list.begin(), list.end());
  list.erase(std::unique(list.begin(), list.end()), list.end());
}

template <typename T, typename Wanted>
bool has(const std::vector<T>& sorted, const Wanted& wanted) {
  return std::binary_search(sorted.begin(), sorted.end(), wanted, std::less<>());
}

bool holds_text(const Comparison& comparison, std::string_view text) {
  if (takes_list(comparison.op)) return has(comparison.texts, text);
  const std::string& constant = comparison.texts.front();
  switch (comparison.op) {
    case Operator::contains:
      return text.find(constant) != text.npos;
    case Operator::starts_with:
      return text.starts_with(constant);
    case Operator::ends_with:
      return text.ends_with(constant);
    case Operator::glob:
      return matches_glob(constant, text);
    default:
      return compare(comparison.op, text, std::string_view(constant));
  }
}

bool holds_texts(const Comparison& comparison, const std::vector<std::string>& texts) {
  const auto one = [&](const std::string& text) { return holds_text(comparison, text); };
  if (comparison.op == Operator::unequal) return std::all_of(texts.begin(), texts.end(), one);
  if (comparison.op != Operator::in) return std::any_of(texts.begin(), texts.end(), one);
  return !texts.empty() && std::all_of(texts.begin(), texts.end(), one);
}

bool holds_number(const Comparison& comparison, std::uint64_t bits) {
  const std::uint64_t value = extend(bits, comparison.type);
  // As an int that was returned in a register of 64 bits, whose upper half says nothing.
  const auto as_int = value >> 32 == 0 ? std::int64_t{static_cast<std::int32_t>(value)}
                                       : static_cast<std::int64_t>(value);
  if (comparison.op == Operator::in) {
    return has(comparison.numbers, value) ||
           has(comparison.ints, static_cast<std::uint64_t>(as_int));
  }
  if (!comparison.ints.empty()) {
    return compare(comparison.op, as_int, static_cast<std::int64_t>(comparison.ints.front()));
  }
  const std::uint64_t constant = comparison.numbers.front();
  if (comparison.type.kind == FieldKind::signed_number) {
    return compare(comparison.op, static_cast<std::int64_t>(value),
                   static_cast<std::int64_t>(constant));
  }
  return compare(comparison.op, value, constant);
}

std::optional<std::uint64_t> bits_of(const Value& value) {
  if (const auto* number = std::get_if<std::uint64_t>(&value)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(&value)) {
    return static_cast<std::uint64_t>(*number);
  }
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? 1 : 0;
  return std::nullopt;
}

}  // namespace

std::optional<Operator> parse_operator(std::string_view text) {
  for (const auto& [name, op] : operators) {
    if (text == name) return op;
  }
  return std::nullopt;
}

std::string_view to_string(Operator op) {
  for (const auto& [name, one] : operators) {
    if (op == one) return name;
  }
  return "";
}

Result<FieldType> type_of(std::string_view name, const FieldNames* names) {
  if (names == nullptr) return FieldType{};
  if (const auto type = names->find(name)) return *type;
  Error error{.code = ErrorCode::not_found,
              .message = fmt::format("no field is called '{}'", escape_bytes(name.substr(0, 80)))};
  error.hint = escape_bytes(
      fmt::format("fields of this rule are {}", fmt::join(nearest(name, names->all()), ", ")));
  return error;
}

Result<Comparison> make_comparison(std::string_view name, Operator op,
                                   const std::vector<std::string>& values,
                                   const FieldNames* names) {
  Comparison comparison{.name = std::string(name), .op = op};
  VMSIGHT_TRY(comparison.type, type_of(name, names));
  if (names == nullptr) {
    comparison.texts = values;
    return comparison;
  }
  const auto [what, can] = abilities(comparison.type.kind);
  if (!is_allowed(comparison.type.kind, op)) {
    return wrong(fmt::format("'{}' is {}, of which '{}' cannot be asked: what can is {}",
                             escape_bytes(name), what, to_string(op), can));
  }
  if (op == Operator::exists) return comparison;
  for (const std::string& value : values) VMSIGHT_TRY_VOID(add_value(comparison, value));
  sort_unique(comparison.texts);
  sort_unique(comparison.numbers);
  sort_unique(comparison.ints);
  return comparison;
}

bool holds(const Comparison& comparison, const Value& value) {
  if (is_absent(value)) return false;
  if (comparison.op == Operator::exists) return true;
  if (const auto* text = std::get_if<std::string>(&value)) {
    return is_text(comparison.type.kind) && holds_text(comparison, *text);
  }
  if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
    return is_text(comparison.type.kind) && holds_texts(comparison, *texts);
  }
  const auto bits = bits_of(value);
  if (!bits || is_text(comparison.type.kind)) return false;
  if (comparison.type.kind == FieldKind::boolean)
    return compare(comparison.op, *bits != 0, comparison.truth);
  return holds_number(comparison, *bits);
}

}  // namespace vmsight::detect
