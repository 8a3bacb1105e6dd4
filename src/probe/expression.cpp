#include "probe/expression.h"

#include <fmt/format.h>
#include <algorithm>
#include <charconv>
#include <cstring>

#include "kernel/guest_text.h"

namespace vmsight {
namespace {

using Part = ExpressionNode::Kind;
using Step = ProbeExpression::Step;
using Known = std::optional<std::uint64_t>;

// ---- text ----------------------------------------------------------------------------------

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

struct Binary {
  std::string_view text;
  unsigned precedence;  // as C's: what binds tighter has more
};
// Those of two characters first: each is looked for in this order.
constexpr Binary binaries[] = {{"||", 1}, {"&&", 2}, {"==", 6}, {"!=", 6}, {"<<", 8}, {">>", 8},
                               {"<=", 7}, {">=", 7}, {"<", 7},  {">", 7},  {"|", 3},  {"^", 4},
                               {"&", 5},  {"+", 9},  {"-", 9},  {"*", 10}, {"/", 10}, {"%", 10}};

constexpr std::string_view plain_types[] = {"u8",  "u16",  "u32",   "u64", "s8",   "s16", "s32",
                                            "s64", "char", "short", "int", "long", "void"};

class TreeParser {
 public:
  explicit TreeParser(std::string_view text) : text_(text) {}

  Result<ExpressionTree> parse() {
    if (text_.size() > ExpressionTree::max_text) return wrong("it is too long");
    VMSIGHT_TRY(tree_.root, binary(1, 0));
    skip_blanks();
    if (at_ != text_.size()) return wrong("what follows makes no sense");
    return std::move(tree_);
  }

 private:
  using Node = Result<std::uint32_t>;

  Error wrong(std::string_view why) const {
    const std::size_t at = std::min(at_, text_.size());
    return {.code = ErrorCode::usage,
            .message = fmt::format("{}, at character {} (\"{}\")", why, at + 1,
                                   escape_bytes(text_.substr(at, 20)))};
  }
  Node add(ExpressionNode node) {
    if (tree_.nodes.size() == ExpressionTree::max_nodes) return wrong("it has too many parts");
    tree_.nodes.push_back(std::move(node));
    return static_cast<std::uint32_t>(tree_.nodes.size() - 1);
  }

  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool take(std::string_view token) {
    skip_blanks();
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  std::string_view take_name() {
    skip_blanks();
    const std::size_t start = at_;
    while (at_ < text_.size() && is_letter(text_[at_])) ++at_;
    return text_.substr(start, at_ - start);
  }
  const Binary* next_binary() {
    skip_blanks();
    const auto is_next = [&](const Binary& one) { return text_.substr(at_).starts_with(one.text); };
    const auto* found = std::find_if(std::begin(binaries), std::end(binaries), is_next);
    return found == std::end(binaries) ? nullptr : found;
  }

  Node binary(unsigned least, unsigned depth) {
    VMSIGHT_TRY(std::uint32_t left, unary(depth));
    while (const Binary* op = next_binary()) {
      if (op->precedence < least) break;
      at_ += op->text.size();
      VMSIGHT_TRY(const std::uint32_t right, binary(op->precedence + 1, depth + 1));
      VMSIGHT_TRY(
          left,
          add({.kind = Part::binary, .text = std::string(op->text), .children = {left, right}}));
    }
    return left;
  }

  Node unary(unsigned depth) {
    if (depth > ExpressionTree::max_nesting) return wrong("it is nested too deep");
    for (const std::string_view op : {"*", "&", "-", "~", "!"}) {
      if (!take(op)) continue;
      VMSIGHT_TRY(const std::uint32_t inner, unary(depth + 1));
      return add({.kind = Part::unary, .text = std::string(op), .children = {inner}});
    }
    VMSIGHT_TRY(auto cast, take_cast());
    if (!cast) return postfix(depth);
    VMSIGHT_TRY(const std::uint32_t inner, unary(depth + 1));
    cast->children = {inner};
    return add(*std::move(cast));
  }

  /// "(struct sock *)": parentheses whose first word is one of a type.
  Result<std::optional<ExpressionNode>> take_cast() {
    const std::size_t start = at_;
    const auto none = [&] {
      at_ = start;
      return Result<std::optional<ExpressionNode>>(std::nullopt);
    };
    if (!take("(")) return none();
    const std::string_view word = take_name();
    std::string type(word);
    if (word == "struct" || word == "union" || word == "enum") {
      const std::string_view name = take_name();
      if (name.empty()) return wrong("the name of a type was expected");
      type += fmt::format(" {}", name);
    } else if (std::find(std::begin(plain_types), std::end(plain_types), word) ==
               std::end(plain_types)) {
      return none();
    }
    std::uint64_t stars = 0;
    while (take("*")) ++stars;
    if (!take(")")) return wrong("the type in parentheses does not end");
    return std::optional(
        ExpressionNode{.kind = Part::cast, .text = std::move(type), .number = stars});
  }

  Node postfix(unsigned depth) {
    VMSIGHT_TRY(std::uint32_t node, primary(depth));
    for (;;) {
      const bool arrow = take("->");
      if (arrow || take(".")) {
        const std::string_view name = take_name();
        if (name.empty()) return wrong("the name of a member was expected");
        VMSIGHT_TRY(node, add({.kind = arrow ? Part::arrow : Part::member,
                               .text = std::string(name),
                               .children = {node}}));
      } else if (take("[")) {
        VMSIGHT_TRY(const std::uint32_t index, binary(1, depth + 1));
        if (!take("]")) return wrong("a bracket is not closed");
        VMSIGHT_TRY(node, add({.kind = Part::index, .children = {node, index}}));
      } else {
        return node;
      }
    }
  }

  Node primary(unsigned depth) {
    if (take("(")) {
      VMSIGHT_TRY(const std::uint32_t inner, binary(1, depth + 1));
      if (!take(")")) return wrong("a parenthesis is not closed");
      return inner;
    }
    skip_blanks();
    if (at_ < text_.size() && is_digit(text_[at_])) return number();
    const std::string_view name = take_name();
    if (name.empty()) return wrong("a name or a number was expected");
    if (take("(")) return call(name, depth);
    return add({.kind = Part::name, .text = std::string(name)});
  }

  Node number() {
    std::string_view word = take_name();
    while (!word.empty() && std::string_view("uUlL").find(word.back()) != word.npos) {
      word.remove_suffix(1);
    }
    const bool hex = word.starts_with("0x") || word.starts_with("0X");
    if (hex) word.remove_prefix(2);
    std::uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(word.data(), word.data() + word.size(), value, hex ? 16 : 10);
    if (word.empty() || error != std::errc() || end != word.data() + word.size())
      return wrong("the number before this is none");
    return add({.kind = Part::number, .number = value});
  }

  Node call(std::string_view name, unsigned depth) {
    ExpressionNode node{.kind = Part::call, .text = std::string(name)};
    do {
      VMSIGHT_TRY(const std::uint32_t argument, binary(1, depth + 1));
      node.children.push_back(argument);
    } while (take(","));
    if (!take(")")) return wrong("a parenthesis is not closed");
    return add(std::move(node));
  }

  std::string_view text_;
  std::size_t at_ = 0;
  ExpressionTree tree_;
};

// ---- values --------------------------------------------------------------------------------

std::uint64_t extend(std::uint64_t value, unsigned bits, bool is_signed) {
  const unsigned unused = 64 - std::clamp<unsigned>(bits, 1, 64);
  if (is_signed) {
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << unused) >> unused);
  }
  return value << unused >> unused;
}

const Fetched* known_fetch(const std::vector<Fetched>& fetched, std::size_t index) {
  return index < fetched.size() && fetched[index].ok ? &fetched[index] : nullptr;
}

Known bytes_of(const Step& step, const Fetched& from, std::uint64_t offset) {
  if (offset > from.bytes.size() || from.bytes.size() - offset < step.size) return std::nullopt;
  std::uint64_t value = 0;
  std::memcpy(&value, from.bytes.data() + offset, step.size);
  return extend(value >> step.bit_offset, step.bits, step.is_signed);
}

/// Netlink attributes: each a length with its head of 4 bytes, a type, and its payload, padded to 4.
Known attribute_of(const Step& step, std::string_view bytes) {
  constexpr std::size_t head = 4;
  constexpr std::uint16_t type_mask = 0x3fff;  // above are NLA_F_NESTED and NLA_F_NET_BYTEORDER
  const auto u16_at = [&](std::size_t at) {
    std::uint16_t value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    return value;
  };
  if (bytes.size() < head) return std::nullopt;
  std::size_t start = head, end = std::min<std::size_t>(bytes.size(), u16_at(0));
  for (const std::uint16_t wanted : step.types) {
    bool found = false;
    for (std::size_t at = start; !found && at + head <= end;) {
      const std::size_t length = u16_at(at);
      if (length < head || length > end - at) return std::nullopt;
      if ((u16_at(at + 2) & type_mask) == wanted) {
        start = at + head;
        end = at + length;
        found = true;
      }
      at += (length + 3) / 4 * 4;
    }
    if (!found) return std::nullopt;
  }
  if (end < start || end - start < sizeof(std::uint32_t)) return std::nullopt;
  std::uint32_t value = 0;
  std::memcpy(&value, bytes.data() + start, sizeof(value));
  return value;
}

Known compute(char op, bool is_signed, std::uint64_t a, std::uint64_t b) {
  const auto x = static_cast<std::int64_t>(a), y = static_cast<std::int64_t>(b);
  switch (op) {
    case '+':
      return a + b;
    case '-':
      return a - b;
    case '*':
      return a * b;
    case '/':
    case '%':
      if (b == 0 || (is_signed && x == INT64_MIN && y == -1)) return std::nullopt;
      if (is_signed) return static_cast<std::uint64_t>(op == '/' ? x / y : x % y);
      return op == '/' ? a / b : a % b;
    case '&':
      return a & b;
    case '|':
      return a | b;
    case '^':
      return a ^ b;
    case 'l':  // <<
      return b > 63 ? 0 : a << b;
    case 'r':  // >>
      if (b > 63) return is_signed && x < 0 ? ~0ULL : 0;
      return is_signed ? static_cast<std::uint64_t>(x >> b) : a >> b;
    case '=':
      return a == b;
    case '!':
      return a != b;
    case '<':
      return is_signed ? x < y : a < b;
    case '>':
      return is_signed ? x > y : a > b;
    case 'L':  // <=
      return is_signed ? x <= y : a <= b;
    case 'G':  // >=
      return is_signed ? x >= y : a >= b;
    default:
      return std::nullopt;
  }
}

}  // namespace

Result<ExpressionTree> parse_expression(std::string_view text) { return TreeParser(text).parse(); }

Known ProbeExpression::run(const Step& step, const std::vector<Fetched>& fetched,
                           const std::vector<Known>& before) const {
  const Fetched* from = known_fetch(fetched, step.fetch);
  const auto part = [&](std::uint32_t index) {
    return index < before.size() ? before[index] : std::nullopt;
  };
  switch (step.kind) {
    case Step::Kind::constant:
      return step.number;
    case Step::Kind::value:
      if (from == nullptr) return std::nullopt;
      return extend(from->value, step.bits, step.is_signed);
    case Step::Kind::bytes:
      return from == nullptr ? std::nullopt : bytes_of(step, *from, step.offset);
    case Step::Kind::element: {
      const Known index = part(step.a);
      if (from == nullptr || !index || *index > ProbeFetch::max_size) return std::nullopt;
      return bytes_of(step, *from, *index * step.stride + step.offset);
    }
    case Step::Kind::length:
      if (from == nullptr || from->value == 0) return std::nullopt;
      return from->bytes.size();
    case Step::Kind::attribute:
      return from == nullptr ? std::nullopt : attribute_of(step, from->bytes);
    case Step::Kind::swap: {
      const Known value = part(step.a);
      if (!value) return std::nullopt;
      const std::uint64_t all = __builtin_bswap64(*value);
      return all >> (64 - 8 * step.size);
    }
    case Step::Kind::unary: {
      const Known value = part(step.a);
      if (!value) return std::nullopt;
      return step.op == '-' ? 0 - *value : step.op == '~' ? ~*value : std::uint64_t{*value == 0};
    }
    case Step::Kind::binary:
      break;
  }
  const Known left = part(step.a), right = part(step.b);
  // One that decides alone needs no other.
  if (step.op == 'a' || step.op == 'o') {
    const bool decides = step.op == 'o';
    if ((left && (*left != 0) == decides) || (right && (*right != 0) == decides)) return decides;
    if (!left || !right) return std::nullopt;
    return !decides;
  }
  if (!left || !right) return std::nullopt;
  return compute(step.op, step.is_signed, *left, *right);
}

Known ProbeExpression::evaluate(const std::vector<Fetched>& fetched) const {
  std::vector<Known> values;
  values.reserve(steps_.size());
  for (const Step& step : steps_) values.push_back(run(step, fetched, values));
  return values.empty() ? std::nullopt : values.back();
}

}  // namespace vmsight
