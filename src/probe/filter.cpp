#include "probe/filter.h"

#include <fmt/format.h>
#include <algorithm>
#include <charconv>

#include "kernel/guest_text.h"

namespace vmsight {
namespace {

using Field = FilterTerm::Field;
using Compare = FilterTerm::Compare;
using Kind = FilterStep::Kind;

constexpr std::size_t max_text = 4096;
constexpr unsigned max_nesting = 32;

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.' || c == '-' || c == '/';
}

class Parser {
 public:
  Parser(std::string_view text, const FilterNames& names) : text_(text), names_(names) {}

  Result<ProbeFilter> parse() {
    if (text_.size() > max_text) return wrong("it is too long");
    VMSIGHT_TRY_VOID(either(0));
    skip_blanks();
    if (at_ != text_.size()) return wrong("what follows makes no sense");
    return std::move(filter_);
  }

 private:
  Error wrong(std::string_view why) const {
    return {
        .code = ErrorCode::usage,
        .message = fmt::format("filter '{}': {}, at \"{}\"", escape_bytes(text_.substr(0, 200)),
                               why, escape_bytes(text_.substr(std::min(at_, text_.size()), 20))),
        .hint =
            "write NAME == VALUE, joined by && and ||; names are pid, tgid, comm, cpu and "
            "the function's arguments"};
  }

  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }
  bool take(std::string_view token) {
    skip_blanks();
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  std::string_view word() {
    skip_blanks();
    const std::size_t start = at_;
    while (at_ < text_.size() && is_word(text_[at_])) ++at_;
    return text_.substr(start, at_ - start);
  }
  void add(Kind kind, std::size_t term = 0) {
    filter_.steps.push_back({kind, static_cast<std::uint16_t>(term)});
  }

  Result<void> either(unsigned depth) {
    VMSIGHT_TRY_VOID(both(depth));
    while (take("||")) {
      VMSIGHT_TRY_VOID(both(depth));
      add(Kind::either);
    }
    return {};
  }

  Result<void> both(unsigned depth) {
    VMSIGHT_TRY_VOID(term(depth));
    while (take("&&")) {
      VMSIGHT_TRY_VOID(term(depth));
      add(Kind::both);
    }
    return {};
  }

  Result<void> term(unsigned depth) {
    if (depth > max_nesting) return wrong("it is nested too deep");
    if (take("!")) {
      VMSIGHT_TRY_VOID(term(depth + 1));
      add(Kind::negate);
      return {};
    }
    if (!take("(")) return comparison();
    VMSIGHT_TRY_VOID(either(depth + 1));
    return take(")") ? Result<void>() : wrong("a parenthesis is not closed");
  }

  Result<void> comparison() {
    const std::string_view name = word();
    if (name.empty()) return wrong("a name was expected");
    const auto known = lookup(name);
    if (!known) return wrong(fmt::format("nothing is called '{}'", escape_bytes(name)));
    FilterTerm term = known->term;
    VMSIGHT_TRY(term.compare, compare());
    VMSIGHT_TRY_VOID(known->is_text ? text_value(term) : number_value(name, *known, term));
    if (filter_.terms.size() == ProbeFilter::max_terms) return wrong("it has too many terms");
    filter_.terms.push_back(std::move(term));
    add(Kind::term, filter_.terms.size() - 1);
    return {};
  }

  std::optional<FilterName> lookup(std::string_view name) const {
    constexpr std::pair<std::string_view, Field> numbers[] = {
        {"pid", Field::pid}, {"tgid", Field::tgid}, {"cpu", Field::cpu}};
    for (const auto& [known, field] : numbers) {
      if (name == known) return FilterName{.term = {.field = field, .is_signed = true}};
    }
    if (name == "comm") return FilterName{.term = {.field = Field::comm}, .is_text = true};
    return names_ ? names_(name) : std::nullopt;
  }

  Result<Compare> compare() {
    constexpr std::pair<std::string_view, Compare> all[] = {
        {"==", Compare::equal},         {"!=", Compare::unequal}, {"<=", Compare::less_equal},
        {">=", Compare::greater_equal}, {"<", Compare::less},     {">", Compare::greater},
    };
    for (const auto& [token, meaning] : all) {
      if (take(token)) return meaning;
    }
    return wrong("a comparison was expected");
  }

  struct Number {
    std::uint64_t value = 0;  // without its sign
    bool negative = false, hexadecimal = false;
    std::uint64_t bits() const { return negative ? 0 - value : value; }
  };

  Result<Number> number() {
    const std::string_view text = word();
    Number number{.negative = text.starts_with('-')};
    std::string_view digits = text.substr(number.negative ? 1 : 0);
    number.hexadecimal = digits.starts_with("0x");
    if (number.hexadecimal) digits.remove_prefix(2);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(),
                                              number.value, number.hexadecimal ? 16 : 10);
    if (error != std::errc() || end != digits.data() + digits.size()) {
      return wrong(fmt::format("'{}' is not a number", escape_bytes(text)));
    }
    return number;
  }

  /// What the type of the value makes of the number.
  Result<void> number_value(std::string_view name, const FilterName& known, FilterTerm& term) {
    VMSIGHT_TRY(const Number number, this->number());
    const bool equality = term.compare == Compare::equal || term.compare == Compare::unequal;
    term.number = static_cast<std::int64_t>(number.bits());
    if (!known.is_typed) {
      term.may_be_int = number.negative || (number.value == 0 && !equality);
      return {};
    }
    const unsigned bits = std::clamp<unsigned>(term.bits, 1, 64);
    const std::uint64_t most = ~0ULL >> (64 - bits), most_signed = most >> 1;
    const bool fits = number.negative ? term.is_signed && number.value <= most_signed + 1
                                      : number.value <= (term.is_signed ? most_signed : most);
    if (fits) {
      // Nothing without a sign is below 0.
      if (term.is_signed || term.compare != Compare::less || number.value != 0) return {};
      return wrong(fmt::format("'{}' has no sign, it is never below 0", escape_bytes(name)));
    }
    // As bits it may be meant.
    const bool is_pattern = number.negative ? !term.is_signed && number.value <= most_signed + 1
                                            : number.hexadecimal && number.value <= most;
    if (!equality || !is_pattern) {
      return wrong(fmt::format("'{}' is a number of {} bits {} a sign, which is never that",
                               escape_bytes(name), bits, term.is_signed ? "with" : "without"));
    }
    const unsigned unused = 64 - bits;
    term.number = static_cast<std::int64_t>(number.bits() << unused >> unused);
    if (term.is_signed) term.number = static_cast<std::int64_t>(number.bits() << unused) >> unused;
    return {};
  }

  Result<void> text_value(FilterTerm& term) {
    if (term.compare != Compare::equal && term.compare != Compare::unequal) {
      return wrong("texts are equal or not, nothing else");
    }
    skip_blanks();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '"' && quote != '\'') {
      const std::string_view text = word();
      if (text.empty()) return wrong("a text was expected");
      term.text = std::string(text);
      return {};
    }
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == text_.npos) return wrong("a quote is not closed");
    term.text = std::string(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return {};
  }

  std::string_view text_;
  const FilterNames& names_;
  std::size_t at_ = 0;
  ProbeFilter filter_;
};

const Fetched* at(const std::vector<Fetched>& list, std::size_t index) {
  return index < list.size() ? &list[index] : nullptr;
}

const Fetched* fetched_of(const FilterTerm& term, const Hit& hit) {
  return at(term.field == Field::fetch ? hit.fetched : hit.fetched_return, term.index);
}

bool is_missing(const FilterTerm& term, const Hit& hit) {
  if (term.field != Field::fetch || !term.text || !term.again) return false;
  const Fetched* fetched = fetched_of(term, hit);
  return fetched == nullptr || !fetched->ok;
}

template <typename Value>
bool holds(Compare compare, const Value& a, const Value& b) {
  switch (compare) {
    case Compare::equal:
      return a == b;
    case Compare::unequal:
      return a != b;
    case Compare::less:
      return a < b;
    case Compare::less_equal:
      return a <= b;
    case Compare::greater:
      return a > b;
    case Compare::greater_equal:
      return a >= b;
  }
  return false;
}

bool holds_text(const FilterTerm& term, const Fetched& fetched) {
  const bool same = fetched.value != 0 && !fetched.cut && fetched.bytes == *term.text;
  return (term.compare == Compare::equal) == same;
}

bool holds_number(const FilterTerm& term, std::uint64_t value) {
  if (term.may_be_int && value >> 32 == 0) {
    value = static_cast<std::uint64_t>(std::int64_t{static_cast<std::int32_t>(value)});
  }
  const unsigned unused = 64 - std::clamp<unsigned>(term.bits, 1, 64);
  const auto wanted = static_cast<std::uint64_t>(term.number);
  if (term.is_signed || term.may_be_int) {
    const auto have = static_cast<std::int64_t>(value << unused) >> unused;
    return holds(term.compare, have, term.number);
  }
  return holds(term.compare, value << unused >> unused, wanted);
}

bool holds(const FilterTerm& term, const Hit& hit) {
  const bool known = hit.task.task.raw() != 0;
  switch (term.field) {
    case Field::pid:
      return known && holds<std::int64_t>(term.compare, hit.task.pid, term.number);
    case Field::tgid:
      return known && holds<std::int64_t>(term.compare, hit.task.tgid, term.number);
    case Field::comm:
      return known && term.text &&
             holds(term.compare, hit.task.name(), std::string_view(*term.text));
    case Field::cpu:
      return holds<std::int64_t>(term.compare, hit.vcpu, term.number);
    case Field::duration:
      return hit.at_return &&
             holds(term.compare, hit.duration_ns, static_cast<std::uint64_t>(term.number));
    case Field::fetch:
    case Field::fetch_return:
      break;
  }
  const Fetched* fetched = fetched_of(term, hit);
  if (hit.at_return && is_missing(term, hit)) fetched = at(hit.fetched_return, *term.again);
  if (fetched == nullptr) return false;
  return term.text ? fetched->ok && holds_text(term, *fetched)
                   : (fetched->ok || fetched->has_value) && holds_number(term, fetched->value);
}

}  // namespace

Result<ProbeFilter> parse_filter(std::string_view text, const FilterNames& names) {
  return Parser(text, names).parse();
}

bool ProbeFilter::needs_return() const {
  return std::any_of(terms.begin(), terms.end(), [](const FilterTerm& term) {
    return term.field == Field::fetch_return || term.field == Field::duration;
  });
}

bool filters_at_return(const ProbeOrder& order) {
  const auto& terms = order.filter.terms;
  const bool asks_cpu = std::any_of(
      terms.begin(), terms.end(), [](const FilterTerm& term) { return term.field == Field::cpu; });
  return order.filter.needs_return() || (order.site.at_return && asks_cpu);
}

bool is_undecided(const ProbeFilter& filter, const Hit& entry) {
  return std::any_of(filter.terms.begin(), filter.terms.end(),
                     [&](const FilterTerm& term) { return is_missing(term, entry); });
}

bool passes(const ProbeFilter& filter, const Hit& hit) {
  std::array<bool, ProbeFilter::max_terms + 1> stack{};
  std::size_t depth = 0;
  for (const FilterStep& step : filter.steps) {
    if (step.kind == Kind::term) {
      if (depth == stack.size() || step.term >= filter.terms.size()) return false;
      stack[depth++] = holds(filter.terms[step.term], hit);
      continue;
    }
    const std::size_t takes = step.kind == Kind::negate ? 1 : 2;
    if (depth < takes) return false;
    if (step.kind == Kind::negate) {
      stack[depth - 1] = !stack[depth - 1];
      continue;
    }
    --depth;
    stack[depth - 1] = step.kind == Kind::both ? stack[depth - 1] && stack[depth]
                                               : stack[depth - 1] || stack[depth];
  }
  return filter.steps.empty() || (depth == 1 && stack[0]);
}

}  // namespace vmsight
