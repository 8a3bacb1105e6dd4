// C expressions over what a function was called with: "iocb->ki_filp->f_inode->i_ino".
//
//   parse_expression   text -> tree, without knowing any name
//   plan_field         once a site: the tree by the types of the guest, and what of it is fetched at a hit
//   evaluate           once a hit: a number, from what was fetched
//
//   binary   := unary { operator unary }       C's operators and their precedence, without ?: and =
//   unary    := ('*' | '&' | '-' | '~' | '!') unary | '(' type { '*' } ')' unary | postfix
//   postfix  := primary { '.' name | '->' name | '[' binary ']' }
//   primary  := number | name | function '(' binary { ',' binary } ')' | '(' binary ')'
//   type     := ('struct' | 'union' | 'enum') name | u8 u16 u32 u64 s8 s16 s32 s64 char short int long
//
// Names are the function's arguments (arg0 ... are their registers), fields that stand before, and
// `current`, the task that runs; "&name" of any other is the address of the kernel's symbol.
// Functions: strlen(text), be16(x) and be32(x) of numbers in network order, and nla_u32(attribute,
// type...), the 32 bits in a netlink attribute, through the nested attributes of these types.
//
// What stands behind a null pointer, or is not in memory, has no value; neither has anything that is
// computed from it. Numbers have 64 bits; what is computed of two signed ones is signed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "probe/arguments.h"

namespace vmsight {

struct ExpressionNode {
  enum class Kind : std::uint8_t { number, name, member, arrow, index, call, cast, unary, binary };
  Kind kind = Kind::number;
  std::string text{};        // the name, the operator, or the type without its stars
  std::uint64_t number = 0;  // or, of a cast, its stars
  std::vector<std::uint32_t> children{};
};
struct ExpressionTree {
  static constexpr std::size_t max_text = 1024;  // bytes
  static constexpr std::size_t max_nodes = 256;
  static constexpr unsigned max_nesting = 32;
  std::vector<ExpressionNode> nodes;  // children before their parents
  std::uint32_t root = 0;
};
/// usage: "WHY, at character N ("...")".
Result<ExpressionTree> parse_expression(std::string_view text);

/// What is computed at a hit, of which the parts were fetched.
class ProbeExpression {
 public:
  struct Step {
    enum class Kind : std::uint8_t {
      constant,  // number
      value,     // of the fetch, `bits` of it
      bytes,     // `size` bytes of the fetch, `bits` of them from bit_offset on
      element,  // the same, of the element that step a counts: `stride` bytes each, from `offset` on
      length,   // of the fetched text
      attribute,  // 32 bits in fetched attributes, by `types`
      swap,       // the bytes of a, `size` of them
      unary,      // op a
      binary,     // a op b
    };
    Kind kind = Kind::constant;
    char op = 0;  // C's first character; << l, >> r, <= L, >= G, && a, || o
    bool is_signed = false;
    std::uint8_t bits = 64, bit_offset = 0, size = 8;
    std::uint32_t a = 0, b = 0;  // earlier steps
    std::uint32_t offset = 0, stride = 0;
    std::size_t fetch = 0;
    std::uint64_t number = 0;
    std::vector<std::uint16_t> types{};
  };
  explicit ProbeExpression(std::vector<Step> steps) : steps_(std::move(steps)) {}

  /// nullopt if a part is not known, and for a division by 0.
  std::optional<std::uint64_t> evaluate(const std::vector<Fetched>& fetched) const;

 private:
  std::optional<std::uint64_t> run(const Step& step, const std::vector<Fetched>& fetched,
                                   const std::vector<std::optional<std::uint64_t>>& before) const;
  std::vector<Step> steps_;  // the last is the value
};

/// Appends an argument of this name to the plan, with what it fetches. `fields` may name arguments and
/// the fields before. usage for what makes no sense with these types; not_found for a symbol or a type
/// that the guest lacks. With an error the plan is as it was.
Result<void> plan_fields(Kernel& kernel, const std::vector<ProbeField>& fields, FunctionPlan& plan);

}  // namespace vmsight
