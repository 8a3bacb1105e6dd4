#include "detect/condition_parser.h"

#include <fmt/format.h>
#include <algorithm>

#include "base/text.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

using Node = Result<std::uint32_t>;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.' || c == '-' || c == '/';
}

/// What a value without quotes is made of.
bool is_bare(char c) {
  constexpr std::string_view others = "()\"',=<>!&|\x7f";
  return static_cast<unsigned char>(c) > ' ' && others.find(c) == others.npos;
}

constexpr std::string_view reserved[] = {
    "and",        "or",       "not",      "in",   "intersects", "contains", "startswith",
    "startsWith", "endswith", "endsWith", "glob", "exists",     "count",
};

class Parser {
 public:
  /// `depth` and `macros` are what the text stands in.
  Parser(std::string_view text, ConditionBuilder& builder, unsigned depth,
         std::vector<std::string> macros)
      : text_(text), builder_(builder), depth_(depth), macros_(std::move(macros)) {}

  Node parse() {
    VMSIGHT_TRY_VOID(here(builder_.use_text(text_.size())));
    VMSIGHT_TRY(const std::uint32_t root, either(depth_));
    if (!at_end()) return wrong("what follows makes no sense");
    if (counts_ && has_either_) return wrong_at(*counts_, stands_alone);
    return root;
  }

  Result<std::optional<std::vector<std::string>>> list() {
    if (!take("(")) return std::optional<std::vector<std::string>>();
    VMSIGHT_TRY(std::vector<std::string> values, items());
    if (!at_end()) return wrong("what follows makes no sense");
    return std::optional(std::move(values));
  }

 private:
  static constexpr std::string_view stands_alone =
      "count() stands alone between the outermost `and`s";

  // ---- errors ----

  Error wrong_at(std::size_t at, std::string_view why, std::string hint = "") const {
    at = std::min(at, text_.size());
    const auto rest = escape_bytes(text_.substr(at, 20));
    return {.code = ErrorCode::usage,
            .message = fmt::format("{}, at character {} (\"{}\")", why, at + 1, rest),
            .hint = std::move(hint)};
  }
  Error wrong(std::string_view why) {
    skip_blanks();
    return wrong_at(at_, why);
  }
  /// With the place of the token that was taken last.
  template <typename T>
  Result<T> here(Result<T> result) const {
    if (result) return result;
    Error error = std::move(result).error();
    return wrong_at(token_, error.message, std::move(error.hint));
  }

  // ---- tokens ----

  void skip_blanks() {
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
  }
  bool at_end() {
    skip_blanks();
    return at_ == text_.size();
  }
  bool take(std::string_view token) {
    skip_blanks();
    if (!text_.substr(at_).starts_with(token)) return false;
    token_ = at_;
    at_ += token.size();
    return true;
  }
  /// The word that comes next, which is not taken.
  std::string_view next_word(bool (*is_part)(char)) {
    skip_blanks();
    std::size_t end = at_;
    while (end < text_.size() && is_part(text_[end])) ++end;
    return text_.substr(at_, end - at_);
  }
  std::string_view take_word(bool (*is_part)(char)) {
    const std::string_view word = next_word(is_part);
    token_ = at_;
    at_ += word.size();
    return word;
  }
  bool take_keyword(std::string_view word) {
    if (next_word(is_name) != word) return false;
    take_word(is_name);
    return true;
  }
  /// A name, and an index in brackets behind it.
  std::string_view take_name() {
    const std::size_t length = take_word(is_name).size(), start = token_;
    if (length == 0 || at_ == text_.size() || text_[at_] != '[') return text_.substr(start, length);
    const std::size_t end = text_.find(']', at_);
    if (end == text_.npos) return text_.substr(start, length);
    at_ = end + 1;
    return text_.substr(start, at_ - start);
  }
  std::optional<Operator> take_operator() {
    for (const std::string_view symbol : {"==", "=", "!=", "<=", ">=", "<", ">"}) {
      if (take(symbol)) return parse_operator(symbol);
    }
    const auto op = parse_operator(next_word(is_name));
    if (op) take_word(is_name);
    return op;
  }

  struct Token {
    std::string_view text;
    bool quoted = false;
  };
  Result<Token> value() {
    skip_blanks();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote == '"' || quote == '\'') {
      const std::size_t end = text_.find(quote, at_ + 1);
      if (end == text_.npos) return wrong("a quote is not closed");
      token_ = at_;
      at_ = end + 1;
      return Token{text_.substr(token_ + 1, end - token_ - 1), true};
    }
    const std::string_view word = take_word(is_bare);
    if (word.empty()) return wrong("a value was expected");
    if (is_reserved_word(word)) {
      return wrong_at(token_, fmt::format("a value was expected; write \"{}\" in quotes", word));
    }
    return Token{word, false};
  }

  // ---- the grammar ----

  Node either(unsigned depth) {
    VMSIGHT_TRY(const std::uint32_t first, both(depth));
    std::vector<std::uint32_t> children{first};
    while (take("||") || take_keyword("or")) {
      VMSIGHT_TRY(const std::uint32_t next, both(depth));
      children.push_back(next);
      has_either_ = has_either_ || depth == 0;
    }
    return here(builder_.join(NodeKind::any, std::move(children)));
  }

  Node both(unsigned depth) {
    VMSIGHT_TRY(const std::uint32_t first, term(depth));
    std::vector<std::uint32_t> children{first};
    while (take("&&") || take_keyword("and")) {
      VMSIGHT_TRY(const std::uint32_t next, term(depth));
      children.push_back(next);
    }
    return here(builder_.join(NodeKind::all, std::move(children)));
  }

  Node term(unsigned depth) {
    if (depth > Condition::max_nesting) return wrong("it is nested too deep");
    if (take("!") || take_keyword("not")) {
      VMSIGHT_TRY(const std::uint32_t child, term(depth + 1));
      return here(builder_.negate(child));
    }
    if (!take("(")) return leaf(depth);
    VMSIGHT_TRY(const std::uint32_t inner, either(depth + 1));
    if (!take(")")) return wrong("a parenthesis is not closed");
    return inner;
  }

  Node leaf(unsigned depth) {
    const std::string_view name = take_name();
    const std::size_t start = token_;
    if (name.empty()) return wrong("a name was expected");
    if (name == "count" && take("(")) return count(depth, start);
    if (is_reserved_word(name)) {
      return wrong_at(start, fmt::format("a name was expected, and '{}' is none", name));
    }
    const auto op = take_operator();
    if (!op) return bare(name, start, depth);
    return comparison(name, start, *op);
  }

  Node comparison(std::string_view name, std::size_t start, Operator op) {
    std::vector<std::string> values;
    if (takes_list(op)) {
      VMSIGHT_TRY(values, operand_list());
    } else if (op != Operator::exists) {
      VMSIGHT_TRY(const Token token, value());
      values.emplace_back(token.text);
    }
    token_ = start;
    return here(builder_.comparison(name, op, values));
  }

  Result<std::vector<std::string>> operand_list() {
    if (take("(")) return items();
    const std::string_view name = take_word(is_bare);
    if (name.empty()) return wrong("a list was expected: (A, B) or the name of one");
    VMSIGHT_TRY_VOID(here(builder_.check_broken(name)));
    if (builder_.find_list(name) == nullptr) {
      return wrong_at(token_, fmt::format("no list is called '{}'", escape_bytes(name)),
                      "write `- list: NAME` with its items before, or the values in parentheses");
    }
    std::vector<std::string> values;
    VMSIGHT_TRY_VOID(here(builder_.add_item(name, true, values)));
    return values;
  }

  /// What stands in parentheses, the first of which is taken.
  Result<std::vector<std::string>> items() {
    std::vector<std::string> values;
    if (take(")")) return values;
    do {
      VMSIGHT_TRY(const Token item, value());
      VMSIGHT_TRY_VOID(here(builder_.add_item(item.text, !item.quoted, values)));
    } while (take(","));
    if (!take(")")) return wrong("a parenthesis is not closed");
    return values;
  }

  /// A macro, or a field that is true or false.
  Node bare(std::string_view name, std::size_t start, unsigned depth) {
    const std::string_view next = next_word(is_name);
    if (!next.empty() && next != "and" && next != "or") {
      return wrong(fmt::format("no operator is called '{}'", escape_bytes(next.substr(0, 40))));
    }
    token_ = start;
    VMSIGHT_TRY_VOID(here(builder_.check_broken(name)));
    if (const PlacedText* macro = builder_.find_macro(name)) {
      return expand(std::string(name), *macro, start, depth);
    }
    if (builder_.names() != nullptr && !builder_.names()->find(name)) return unknown(name, start);
    if (builder_.names() != nullptr &&
        builder_.names()->find(name)->kind != FieldType::Kind::boolean) {
      return wrong_at(start, fmt::format("'{}' is not true or false: compare it with something",
                                         escape_bytes(name)));
    }
    return here(builder_.comparison(name, Operator::equal, {"true"}));
  }

  Error unknown(std::string_view name, std::size_t start) const {
    std::vector<std::string> known = builder_.names()->all();
    if (const Macros* macros = builder_.context().macros) {
      for (const auto& [macro, text] : *macros) known.push_back(macro);
    }
    const auto near = nearest(name, std::move(known));
    return wrong_at(
        start,
        fmt::format("neither a macro nor a field is called '{}'", escape_bytes(name.substr(0, 80))),
        escape_bytes(fmt::format("there are {}", fmt::join(near, ", "))));
  }

  Node expand(std::string name, const PlacedText& macro, std::size_t start, unsigned depth) {
    std::vector<std::string> within = macros_;
    const bool circular = std::find(within.begin(), within.end(), name) != within.end();
    within.push_back(name);
    if (circular) {
      return wrong_at(start,
                      fmt::format("macro '{}' uses itself: {}", name, fmt::join(within, " > ")));
    }
    auto node = Parser(macro.text, builder_, depth + 1, std::move(within)).parse();
    if (node) return node;
    Error error = std::move(node).error();
    const std::string where = fmt::format("macro \"{}\" ({}): ", name, to_string(macro.place));
    error.message = error.message.starts_with("macro ") ? error.message : where + error.message;
    return error;
  }

  // ---- count() ----

  /// What follows "count(".
  Node count(unsigned depth, std::size_t start) {
    if (depth != 0 || !macros_.empty()) return wrong_at(start, stands_alone);
    if (!counts_) counts_ = start;
    std::vector<std::string> words;
    do {
      words.emplace_back(take_name());
      if (words.back().empty()) return wrong("a field or a duration was expected");
    } while (take(","));
    if (!take(")")) return wrong("a parenthesis is not closed");
    const auto window = parse_duration(words.back());
    words.pop_back();
    if (!window || *window == 0 || words.empty()) {
      return wrong_at(start, "count() takes fields and, at last, a duration: count(pid, 10s)");
    }
    return compare_count({.keys = std::move(words), .window = {.length_ns = *window}}, start);
  }

  Node compare_count(ConditionCount made, std::size_t start) {
    const auto op = take_operator();
    if (!op || !is_comparison(*op)) {
      return wrong("count() is compared with a number by == != < <= > >=");
    }
    VMSIGHT_TRY(const Token token, value());
    const auto number = parse_whole<std::uint64_t>(token.text);
    if (!number || *number > Condition::max_count) {
      return wrong_at(
          token_, fmt::format("count() is compared with a number up to {}", Condition::max_count));
    }
    made.op = *op;
    made.number = *number;
    made.window.most = static_cast<std::size_t>(*number) + 1;
    token_ = start;
    return here(builder_.count(std::move(made)));
  }

  std::string_view text_;
  ConditionBuilder& builder_;
  unsigned depth_;
  std::vector<std::string> macros_;
  std::size_t at_ = 0;
  std::size_t token_ = 0;              // where the one that was taken last begins
  std::optional<std::size_t> counts_;  // where the first count() stands
  bool has_either_ = false;            // the outermost terms are joined by `or`
};

}  // namespace

bool is_reserved_word(std::string_view word) {
  return std::find(std::begin(reserved), std::end(reserved), word) != std::end(reserved);
}

Result<std::uint32_t> parse_condition(std::string_view text, ConditionBuilder& builder) {
  return Parser(text, builder, 0, {}).parse();
}

Result<std::optional<std::vector<std::string>>> parse_list(std::string_view text,
                                                           ConditionBuilder& builder) {
  return Parser(text, builder, 0, {}).list();
}

}  // namespace vmsight::detect
