// Expressions by the types of a guest: names become registers, members become offsets, and what has to
// be read at a hit becomes fetches.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/text.h"
#include "kernel/architecture.h"
#include "kernel/guest_text.h"
#include "kernel/type_print.h"
#include "probe/expression.h"

namespace vmsight {
namespace {

using Part = ExpressionNode::Kind;
using Step = ProbeExpression::Step;
using Shape = ArgumentPlan::Shape;
using What = ProbeFetch::What;

constexpr std::uint64_t max_block =
    1024;  // bytes of an array of which any element may be asked for
constexpr std::uint16_t max_attributes = 256;  // bytes of netlink attributes
constexpr std::size_t max_plan_steps = 512;

/// A type of the guest with stars added, or a number that was computed.
struct ValueType {
  TypeId id = 0;
  unsigned stars = 0;
  bool is_number = false, is_signed = false;
};

/// A number at a hit: the base, followed through pointers, and something added.
struct Chain {
  std::uint8_t base = 0, step_count = 0;
  std::array<std::int32_t, ProbeFetch::max_steps> steps{};
  std::int64_t offset = 0;
};

struct Meaning {
  enum class Form : std::uint8_t {
    number,   // that the step computes
    chain,    // a number, often a pointer
    object,   // what lies in memory at the chain
    element,  // what lies in the fetch, at an index that is computed
  };
  Form form = Form::number;
  ValueType type;
  std::uint32_t step = 0;
  Chain chain{};
  std::size_t fetch = 0;
  std::uint32_t index = 0, stride = 0;
  std::int64_t offset = 0;                     // in the element
  std::uint32_t bit_offset = 0, bit_size = 0;  // of a bitfield
  std::optional<std::uint64_t> constant{};
};

class FieldPlanner {
 public:
  FieldPlanner(Kernel& kernel, const Btf& btf, FunctionPlan& plan)
      : kernel_(kernel), btf_(btf), plan_(plan) {}

  Result<ArgumentPlan> plan(const ProbeField& field) {
    auto made = try_plan(field);
    if (made) return made;
    Error error = std::move(made).error();
    error.message = fmt::format("field \"{}\": {}", escape_bytes(field.name), error.message);
    return error;
  }

 private:
  using Made = Result<Meaning>;

  static Error wrong(std::string why, ErrorCode code = ErrorCode::usage) {
    return {.code = code, .message = std::move(why)};
  }

  Result<ArgumentPlan> try_plan(const ProbeField& field) {
    VMSIGHT_TRY(ExpressionTree tree, parse_expression(field.expression));
    steps_.clear();
    work_ = 0;
    VMSIGHT_TRY(const Meaning meaning, mean(tree, tree.root));
    VMSIGHT_TRY(ArgumentPlan argument, shape_of(meaning));
    argument.name = field.name;
    fields_[field.name] = std::move(tree);
    return argument;
  }

  // ---- types ----

  std::optional<ValueType> target_of(const ValueType& type) const {
    if (type.is_number) return std::nullopt;
    if (type.stars > 0) return ValueType{.id = type.id, .stars = type.stars - 1};
    const BtfType pointer = btf_.resolve(type.id);
    if (pointer.kind != BtfKind::pointer) return std::nullopt;
    return ValueType{.id = pointer.target};
  }
  BtfType resolved(const ValueType& type) const {
    return type.stars > 0 || type.is_number ? BtfType{.kind = BtfKind::pointer}
                                            : btf_.resolve(type.id);
  }
  std::uint64_t size_of(const ValueType& type) const {
    if (type.stars > 0 || type.is_number) return 8;
    if (btf_.resolve(type.id).kind == BtfKind::void_type) return 1;
    return btf_.size_of(type.id).value_or(0);
  }
  bool is_pointer(const ValueType& type) const {
    return !type.is_number && (type.stars > 0 || btf_.resolve(type.id).kind == BtfKind::pointer);
  }
  bool is_signed(const ValueType& type) const {
    if (type.is_number) return type.is_signed;
    if (type.stars > 0) return false;
    const BtfType found = btf_.resolve(type.id);
    if (found.is_enum()) return found.flag;
    return found.kind == BtfKind::integer && btf_.integer(found).is_signed;
  }
  bool is_char(const ValueType& type) const {
    const BtfType found = resolved(type);
    return found.kind == BtfKind::integer && found.size == 1 && found.name == "char";
  }
  std::string name_of(const ValueType& type) const {
    if (type.is_number) return type.is_signed ? "s64" : "u64";
    std::string name = type_name(btf_, type.id);
    if (type.stars > 0) name += (name.ends_with('*') ? "" : " ") + std::string(type.stars, '*');
    return name;
  }

  // ---- fetches and steps ----

  std::size_t fetch(const Chain& chain, What what, std::uint16_t size) {
    const ProbeFetch wanted{.what = what,
                            .base = chain.base,
                            .step_count = chain.step_count,
                            .steps = chain.steps,
                            .offset = static_cast<std::int32_t>(chain.offset),
                            .size = size};
    const auto same = std::find(plan_.fetches.begin(), plan_.fetches.end(), wanted);
    if (same != plan_.fetches.end()) return static_cast<std::size_t>(same - plan_.fetches.begin());
    plan_.fetches.push_back(wanted);
    return plan_.fetches.size() - 1;
  }
  std::uint32_t add(Step step) {
    steps_.push_back(std::move(step));
    return static_cast<std::uint32_t>(steps_.size() - 1);
  }
  Meaning number(Step step, ValueType type) {
    step.is_signed = step.is_signed || (step.kind == Step::Kind::constant && type.is_signed);
    return {.form = Meaning::Form::number, .type = type, .step = add(std::move(step))};
  }
  Meaning constant(std::uint64_t value, bool is_signed = true) {
    Meaning made = number({.kind = Step::Kind::constant, .number = value},
                          {.is_number = true, .is_signed = is_signed});
    made.constant = value;
    return made;
  }

  /// The chain with the object at its end read as a pointer, or as the 8 bytes that a number is among.
  static std::optional<Chain> followed(const Chain& chain) {
    if (chain.step_count == chain.steps.size()) return std::nullopt;
    Chain next = chain;
    next.steps[next.step_count++] = static_cast<std::int32_t>(chain.offset);
    next.offset = 0;
    return next;
  }

  /// Memory of programs ends where it likes: 8 bytes may not be there where 4 are.
  bool may_read_beyond(std::uint64_t size) const { return size == 8 || !plan_.system_call; }

  struct Bits {
    std::uint8_t bits = 64, offset = 0, size = 8;
  };
  Result<Bits> bits_of(const Meaning& object) const {
    const std::uint64_t size = size_of(object.type);
    if (object.bit_size != 0) {
      const std::uint32_t end = object.bit_offset + object.bit_size;
      if (end > 64) return wrong("it is a bitfield across 8 bytes");
      return Bits{static_cast<std::uint8_t>(object.bit_size),
                  static_cast<std::uint8_t>(object.bit_offset),
                  static_cast<std::uint8_t>((end + 7) / 8)};
    }
    const BtfType type = resolved(object.type);
    const bool is_scalar =
        type.kind == BtfKind::integer || type.kind == BtfKind::pointer || type.is_enum();
    if (!is_scalar || size == 0 || size > 8)
      return wrong(fmt::format("{} is no number", name_of(object.type)));
    return Bits{static_cast<std::uint8_t>(size * 8), 0, static_cast<std::uint8_t>(size)};
  }

  /// The step that computes it.
  Result<std::uint32_t> step_of(const Meaning& meaning) {
    switch (meaning.form) {
      case Meaning::Form::number:
        return meaning.step;
      case Meaning::Form::chain: {
        const std::uint8_t bits = static_cast<std::uint8_t>(
            meaning.type.is_number ? 64
                                   : std::clamp<std::uint64_t>(size_of(meaning.type), 1, 8) * 8);
        return add({.kind = Step::Kind::value,
                    .is_signed = is_signed(meaning.type),
                    .bits = bits,
                    .fetch = fetch(meaning.chain, What::value, 0)});
      }
      case Meaning::Form::object:
        return load(meaning);
      case Meaning::Form::element: {
        VMSIGHT_TRY(const Bits bits, bits_of(meaning));
        return add({.kind = Step::Kind::element,
                    .is_signed = is_signed(meaning.type),
                    .bits = bits.bits,
                    .bit_offset = bits.offset,
                    .size = bits.size,
                    .a = meaning.index,
                    .offset = static_cast<std::uint32_t>(meaning.offset),
                    .stride = meaning.stride,
                    .fetch = meaning.fetch});
      }
    }
    return wrong("it has no value");
  }

  Result<std::uint32_t> load(const Meaning& object) {
    VMSIGHT_TRY(const Bits bits, bits_of(object));
    const auto whole = followed(object.chain);
    if (whole && bits.offset == 0 && object.bit_size == 0 && may_read_beyond(bits.size)) {
      return add({.kind = Step::Kind::value,
                  .is_signed = is_signed(object.type),
                  .bits = bits.bits,
                  .fetch = fetch(*whole, What::value, 0)});
    }
    return add({.kind = Step::Kind::bytes,
                .is_signed = is_signed(object.type),
                .bits = bits.bits,
                .bit_offset = bits.offset,
                .size = bits.size,
                .fetch = fetch(object.chain, What::bytes, bits.size)});
  }

  // ---- the tree ----

  Made mean(const ExpressionTree& tree, std::uint32_t at) {
    if (++work_ > max_plan_steps)
      return wrong("it, with the fields that it names, has too many parts");
    const ExpressionNode& node = tree.nodes[at];
    switch (node.kind) {
      case Part::number:
        return constant(node.number);
      case Part::name:
        return name(node.text);
      case Part::call:
        return call(tree, node);
      case Part::cast:
        return cast(tree, node);
      case Part::unary:
        return unary(tree, node);
      case Part::binary:
        return binary(tree, node);
      case Part::index:
        return element(tree, node);
      case Part::member:
      case Part::arrow:
        return member(tree, node);
    }
    return wrong("it makes no sense");
  }

  Made name(const std::string& name) {
    if (name == "current") {
      const auto task = btf_.find_type("struct task_struct");
      if (!task) return wrong("the guest does not say what a task is", ErrorCode::not_found);
      return Meaning{.form = Meaning::Form::chain,
                     .type = {.id = *task, .stars = 1},
                     .chain = {.base = ProbeFetch::of_task}};
    }
    for (std::size_t i = 0; i < plan_.arguments.size(); ++i) {
      const ArgumentPlan& argument = plan_.arguments[i];
      const bool by_number = name == fmt::format("arg{}", i);
      if ((argument.name != name && !by_number) || argument.expression ||
          argument.shape == Shape::opaque) {
        continue;
      }
      const ProbeFetch& from = plan_.fetches[argument.value];
      ValueType type = type_of(argument);
      if (by_number && argument.name != name) type = {.is_number = true};
      return Meaning{.form = Meaning::Form::chain,
                     .type = type,
                     .chain = {.base = from.base,
                               .step_count = from.step_count,
                               .steps = from.steps,
                               .offset = from.offset}};
    }
    const auto field = fields_.find(name);
    if (field != fields_.end()) return mean(field->second, field->second.root);
    std::string known = "current";
    for (const ArgumentPlan& argument : plan_.arguments) known += ", " + argument.name;
    Error error = wrong(fmt::format("nothing is called '{}'", escape_bytes(name)));
    error.hint = "names are " + known;
    return error;
  }

  /// Those of system calls are told as text: "const struct iovec __user *".
  ValueType type_of(const ArgumentPlan& argument) const {
    if (argument.type_id != 0) return {.id = argument.type_id};
    ValueType type{.is_number = true, .is_signed = argument.is_signed};
    std::string name;
    unsigned stars = 0;
    for (const std::string_view word : split_at(argument.type, ' ')) {
      if (word == "const" || word == "__user") continue;
      const std::size_t star = word.find('*');
      stars += static_cast<unsigned>(std::count(word.begin(), word.end(), '*'));
      name += fmt::format("{}{}", name.empty() ? "" : " ", word.substr(0, star));
    }
    while (name.ends_with(' ')) name.pop_back();
    const auto id = btf_.find_type(name);
    return id && stars > 0 ? ValueType{.id = *id, .stars = stars} : type;
  }

  /// What is pointed to.
  Made pointed(const Meaning& pointer) {
    const auto target = target_of(pointer.type);
    if (!target)
      return wrong(
          fmt::format("{} is no pointer; give it a type: (struct x *)y", name_of(pointer.type)));
    VMSIGHT_TRY(const Meaning value, loaded(pointer));
    if (value.form != Meaning::Form::chain) {
      return wrong(fmt::format("it follows a pointer that is computed, or more than {} pointers",
                               ProbeFetch::max_steps));
    }
    return Meaning{.form = Meaning::Form::object, .type = *target, .chain = value.chain};
  }

  /// An object as a value: of pointers what they hold, of arrays where they begin.
  Made loaded(const Meaning& meaning) {
    if (meaning.form != Meaning::Form::object) return meaning;
    const BtfType type = resolved(meaning.type);
    if (type.kind == BtfKind::array) {
      return Meaning{.form = Meaning::Form::chain,
                     .type = {.id = btf_.array(type).element, .stars = 1},
                     .chain = meaning.chain};
    }
    if (is_pointer(meaning.type)) {
      if (const auto next = followed(meaning.chain))
        return Meaning{.form = Meaning::Form::chain, .type = meaning.type, .chain = *next};
    }
    return meaning;
  }

  Made member(const ExpressionTree& tree, const ExpressionNode& node) {
    VMSIGHT_TRY(Meaning object, mean(tree, node.children[0]));
    if (is_pointer(object.type)) {  // '.' and '->' alike go through a pointer, as gdb's do
      VMSIGHT_TRY(object, pointed(object));
    }
    const BtfType type = resolved(object.type);
    const bool in_memory =
        object.form == Meaning::Form::object || object.form == Meaning::Form::element;
    if (!type.is_composite() || !in_memory) {
      return wrong(fmt::format("\"{}\" of something that is no structure ({})",
                               escape_bytes(node.text), name_of(object.type)));
    }
    const auto place = btf_.place(type.id, node.text);
    if (!place) {
      return wrong(
          fmt::format("{} has no member \"{}\"", type_name(btf_, type.id), escape_bytes(node.text)),
          ErrorCode::not_found);
    }
    object.type = {.id = place->type};
    object.bit_offset =
        place->bit_size != 0 ? static_cast<std::uint32_t>(place->bit_offset % 8) : 0;
    object.bit_size = place->bit_size;
    const std::uint64_t by = place->bit_offset / 8;
    if (object.form == Meaning::Form::object) return moved(object, by, 1);
    object.offset += static_cast<std::int64_t>(by);
    return object;
  }

  Made element(const ExpressionTree& tree, const ExpressionNode& node) {
    VMSIGHT_TRY(const Meaning from, mean(tree, node.children[0]));
    VMSIGHT_TRY(const Meaning index, mean(tree, node.children[1]));
    std::uint64_t count = ~0ULL;
    const BtfType type = resolved(from.type);
    if (from.form == Meaning::Form::object && type.kind == BtfKind::array)
      count = btf_.array(type).count;
    VMSIGHT_TRY(const Meaning start, loaded(from));
    return element_of(start, index, count);
  }

  /// By so many elements of that size.
  static Made moved(Meaning from, std::uint64_t count, std::uint64_t size) {
    constexpr std::int64_t most = INT32_MAX;
    const auto by = static_cast<std::int64_t>(count);
    const bool is_near = by <= most && by >= -most && size <= INT32_MAX;
    const std::int64_t bytes = is_near ? by * static_cast<std::int64_t>(size) : INT64_MAX;
    if (!is_near || bytes > most || bytes < -most || std::abs(from.chain.offset + bytes) > most)
      return wrong("it reaches too far from where a pointer points to");
    from.chain.offset += bytes;
    return from;
  }

  /// The element of what the pointer points to.
  Made element_of(const Meaning& pointer, const Meaning& index, std::uint64_t count) {
    const auto target = target_of(pointer.type);
    const std::uint64_t size = target ? size_of(*target) : 0;
    if (!target || size == 0 || pointer.form != Meaning::Form::chain)
      return wrong("[] needs a pointer or an array, with elements of a known size");
    Meaning made{.form = Meaning::Form::object, .type = *target, .chain = pointer.chain};
    if (index.constant) {
      return moved(made, *index.constant, size);
    }
    const std::uint64_t fits =
        std::min<std::uint64_t>(max_block / size, count == 0 ? ~0ULL : count);
    if (fits == 0) return wrong(fmt::format("elements of {} bytes are too large", size));
    made.form = Meaning::Form::element;
    made.fetch = fetch(pointer.chain, What::bytes, static_cast<std::uint16_t>(fits * size));
    VMSIGHT_TRY(made.index, step_of(index));
    made.stride = static_cast<std::uint32_t>(size);
    return made;
  }

  Made cast(const ExpressionTree& tree, const ExpressionNode& node) {
    VMSIGHT_TRY(const Meaning inner, mean(tree, node.children[0]));
    VMSIGHT_TRY(Meaning value, loaded(inner));
    const auto stars = static_cast<unsigned>(std::min<std::uint64_t>(node.number, 8));
    ValueType type{.stars = stars};
    if (node.text != "void") {
      const std::string name = node.text == "long" ? "long int" : node.text;
      const auto id = btf_.find_type(name == "short" ? "short int" : name);
      if (!id) {
        return wrong(fmt::format("the guest has no type \"{}\"", escape_bytes(node.text)),
                     ErrorCode::not_found);
      }
      type.id = *id;
    }
    if (stars == 0 && !is_number(type))
      return wrong("only numbers and pointers can be given another type");
    if (value.form == Meaning::Form::chain) {
      value.type = type;
      return value;
    }
    VMSIGHT_TRY(const std::uint32_t step, step_of(value));
    if (stars == 0) return narrowed(step, type);
    return Meaning{.form = Meaning::Form::number, .type = type, .step = step};
  }

  bool is_number(const ValueType& type) const {
    const BtfType found = resolved(type);
    return (found.kind == BtfKind::integer || found.is_enum()) && found.size <= 8;
  }

  /// The low bits of it, with the sign of the type.
  Meaning narrowed(std::uint32_t step, const ValueType& type) {
    const std::uint64_t unused = 64 - size_of(type) * 8;
    if (unused == 0) return {.form = Meaning::Form::number, .type = type, .step = step};
    const std::uint32_t by = add({.kind = Step::Kind::constant, .number = unused});
    const std::uint32_t up = add({.kind = Step::Kind::binary, .op = 'l', .a = step, .b = by});
    return {.form = Meaning::Form::number,
            .type = type,
            .step = add({.kind = Step::Kind::binary,
                         .op = 'r',
                         .is_signed = is_signed(type),
                         .a = up,
                         .b = by})};
  }

  Made unary(const ExpressionTree& tree, const ExpressionNode& node) {
    const ExpressionNode& inner = tree.nodes[node.children[0]];
    if (node.text == "&" && inner.kind == Part::name && !is_known(inner.text)) {
      const auto symbol = kernel_.symbol(inner.text);
      if (symbol) return constant(symbol->raw(), false);
      return wrong(fmt::format("the guest's kernel has no symbol \"{}\"", escape_bytes(inner.text)),
                   ErrorCode::not_found);
    }
    VMSIGHT_TRY(const Meaning operand, mean(tree, node.children[0]));
    if (node.text == "*") return pointed(operand);
    if (node.text == "&") {
      if (operand.form != Meaning::Form::object || operand.bit_size != 0)
        return wrong("& needs an object in memory");
      return Meaning{.form = Meaning::Form::chain,
                     .type = {.id = operand.type.id, .stars = operand.type.stars + 1},
                     .chain = operand.chain};
    }
    VMSIGHT_TRY(const std::uint32_t value, step_of(operand));
    const bool sign = node.text == "!" || node.text == "-" || is_signed(operand.type);
    Meaning made = number({.kind = Step::Kind::unary, .op = node.text[0], .a = value},
                          {.is_number = true, .is_signed = sign});
    if (operand.constant && node.text == "-") made.constant = 0 - *operand.constant;
    return made;
  }

  bool is_known(const std::string& name) const {
    const auto is_called = [&](const ArgumentPlan& argument) { return argument.name == name; };
    return name == "current" || fields_.contains(name) ||
           std::any_of(plan_.arguments.begin(), plan_.arguments.end(), is_called);
  }

  Made binary(const ExpressionTree& tree, const ExpressionNode& node) {
    VMSIGHT_TRY(Meaning left, mean(tree, node.children[0]));
    VMSIGHT_TRY(Meaning right, mean(tree, node.children[1]));
    VMSIGHT_TRY(left, loaded(left));
    VMSIGHT_TRY(right, loaded(right));
    const bool adds = node.text == "+" || node.text == "-";
    if (adds && left.form == Meaning::Form::chain && right.constant &&
        (is_pointer(left.type) || left.type.is_number)) {
      const auto target = target_of(left.type);
      const std::uint64_t size = target ? size_of(*target) : 1;
      if (size == 0) return wrong("what the pointer points to has no known size");
      return moved(left, node.text == "+" ? *right.constant : 0 - *right.constant, size);
    }
    if (adds && is_pointer(left.type) && !is_pointer(right.type))
      return wrong("only constants are added to a pointer; write p[i] for an element");
    VMSIGHT_TRY(const std::uint32_t a, step_of(left));
    VMSIGHT_TRY(const std::uint32_t b, step_of(right));
    const bool shifts = node.text == "<<" || node.text == ">>";
    const bool sign = is_signed(left.type) && (shifts || is_signed(right.type));
    const bool is_truth =
        std::string_view("== != < > <= >= && ||").find(node.text) != std::string_view::npos;
    Meaning made = number(
        {.kind = Step::Kind::binary, .op = code_of(node.text), .is_signed = sign, .a = a, .b = b},
        {.is_number = true, .is_signed = is_truth || sign});
    if (left.constant && right.constant) {
      const ProbeExpression folded({steps_.begin(), steps_.end()});
      made.constant = folded.evaluate({});
    }
    return made;
  }

  static char code_of(std::string_view op) {
    constexpr std::pair<std::string_view, char> codes[] = {{"<<", 'l'}, {">>", 'r'}, {"<=", 'L'},
                                                           {">=", 'G'}, {"&&", 'a'}, {"||", 'o'}};
    for (const auto& [text, code] : codes) {
      if (text == op) return code;
    }
    return op[0];
  }

  Made call(const ExpressionTree& tree, const ExpressionNode& node) {
    if (node.text == "be16" || node.text == "be32") {
      if (node.children.size() != 1) return wrong(node.text + "() takes one number");
      VMSIGHT_TRY(const Meaning inner, mean(tree, node.children[0]));
      VMSIGHT_TRY(const std::uint32_t value, step_of(inner));
      const std::uint8_t size = node.text == "be16" ? 2 : 4;
      return number({.kind = Step::Kind::swap, .size = size, .a = value}, {.is_number = true});
    }
    if (node.text == "strlen") {
      if (node.children.size() != 1) return wrong("strlen() takes one text");
      VMSIGHT_TRY(const Meaning inner, mean(tree, node.children[0]));
      VMSIGHT_TRY(const auto text, text_fetch(inner));
      if (!text) return wrong("strlen() takes a pointer to char, or an array of it");
      return number({.kind = Step::Kind::length, .fetch = *text}, {.is_number = true});
    }
    if (node.text == "nla_u32") return attribute(tree, node);
    return wrong(fmt::format("no function is called '{}'; there are be16, be32, nla_u32, strlen",
                             escape_bytes(node.text)));
  }

  Made attribute(const ExpressionTree& tree, const ExpressionNode& node) {
    VMSIGHT_TRY(const Meaning inner, mean(tree, node.children[0]));
    VMSIGHT_TRY(const Meaning start, loaded(inner));
    if (start.form != Meaning::Form::chain) return wrong("nla_u32() takes a pointer first");
    Step step{.kind = Step::Kind::attribute,
              .fetch = fetch(start.chain, What::bytes, max_attributes)};
    for (std::size_t i = 1; i < node.children.size(); ++i) {
      VMSIGHT_TRY(const Meaning type, mean(tree, node.children[i]));
      if (!type.constant || *type.constant > 0x3fff)
        return wrong("nla_u32() takes types of attributes, which are constants");
      step.types.push_back(static_cast<std::uint16_t>(*type.constant));
    }
    return number(std::move(step), {.is_number = true});
  }

  /// The fetch of a text that it points to, or is; nullopt if it is none.
  Result<std::optional<std::size_t>> text_fetch(const Meaning& meaning) {
    VMSIGHT_TRY(const Meaning start, loaded(meaning));
    const auto target = target_of(start.type);
    if (start.form != Meaning::Form::chain || !target || !is_char(*target))
      return std::optional<std::size_t>();
    std::uint64_t size = max_argument_text;
    if (meaning.form == Meaning::Form::object) {
      const BtfType type = resolved(meaning.type);
      if (type.kind == BtfKind::array && btf_.array(type).count != 0)
        size = std::min<std::uint64_t>(size, btf_.array(type).count);
    }
    return std::optional(fetch(start.chain, What::string, static_cast<std::uint16_t>(size)));
  }

  // ---- what it is at last ----

  Result<ArgumentPlan> shape_of(const Meaning& meaning) {
    ArgumentPlan argument{.name = {}, .type = name_of(meaning.type), .label = {}, .problem = {}};
    VMSIGHT_TRY(const auto text, text_fetch(meaning));
    if (text) {
      argument.shape = Shape::text;
      argument.value = *text;
      return argument;
    }
    VMSIGHT_TRY(const Meaning value, loaded(meaning));
    VMSIGHT_TRY(const std::uint32_t last, step_of(value));
    set_number_shape(argument, value.type);
    const Step step = steps_[last];
    if (step.kind == Step::Kind::value) {  // engines know it, and can filter by it
      argument.value = step.fetch;
      argument.bits = step.bits;
      return argument;
    }
    steps_.resize(last + 1);
    argument.expression = std::make_shared<const ProbeExpression>(std::move(steps_));
    steps_ = {};
    return argument;
  }

  void set_number_shape(ArgumentPlan& argument, const ValueType& type) const {
    argument.is_signed = is_signed(type);
    argument.shape = Shape::number;
    if (is_pointer(type)) argument.shape = Shape::pointer;
    if (type.is_number || type.stars > 0) return;
    const BtfType found = btf_.resolve(type.id);
    argument.type_id = type.id;
    if (found.is_enum()) argument.shape = Shape::enumerator;
    if (found.kind == BtfKind::integer && btf_.integer(found).is_bool)
      argument.shape = Shape::boolean;
  }

  Kernel& kernel_;
  const Btf& btf_;
  FunctionPlan& plan_;
  std::map<std::string, ExpressionTree, std::less<>> fields_;  // those before
  std::vector<Step> steps_;
  std::size_t work_ = 0;
};

}  // namespace

Result<void> plan_fields(Kernel& kernel, const std::vector<ProbeField>& fields,
                         FunctionPlan& plan) {
  if (fields.empty()) return {};
  const Btf* btf = plan.btf;
  if (btf == nullptr) {
    VMSIGHT_TRY(btf, kernel.btf());
  }
  FunctionPlan grown = plan;
  FieldPlanner planner(kernel, *btf, grown);
  std::vector<ArgumentPlan> made;
  for (const ProbeField& field : fields) {
    VMSIGHT_TRY(ArgumentPlan argument, planner.plan(field));
    made.push_back(std::move(argument));
  }
  grown.arguments.insert(grown.arguments.end(), made.begin(), made.end());
  plan = std::move(grown);
  return {};
}

}  // namespace vmsight
