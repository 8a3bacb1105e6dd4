#include "kernel/type_expression.h"

#include <fmt/format.h>
#include <algorithm>
#include <cctype>
#include <charconv>

#include "kernel/guest_text.h"
#include "kernel/type_print.h"

namespace vmsight {
namespace {

constexpr std::size_t max_length = 4096;
constexpr unsigned max_depth = 64;

bool is_name_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

struct Qualifier {
  std::size_t at = 0, length = 0;  // of the module's name, which a ':' follows
};

std::optional<Qualifier> next_qualifier(std::string_view text, std::size_t from) {
  const std::size_t colon = text.find(':', from);
  if (colon == std::string_view::npos) return std::nullopt;
  std::size_t start = colon;
  while (start > from && is_name_char(text[start - 1])) --start;
  return Qualifier{start, colon - start};
}

class Evaluator {
 public:
  Evaluator(Kernel& kernel, const Btf& btf, Reader& reader, std::string_view text,
            std::optional<std::size_t> cpu)
      : kernel_(kernel), btf_(btf), reader_(reader), text_(text), cpu_(cpu) {}

  Result<Operand> run() {
    VMSIGHT_TRY(Operand operand, unary());
    skip_space();
    if (at_ != text_.size()) return syntax("unexpected text");
    return operand;
  }

 private:
  // --- the text
  void skip_space() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool take(std::string_view token) {
    skip_space();
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  std::string_view take_name() {
    skip_space();
    const std::size_t start = at_;
    while (at_ < text_.size() && is_name_char(text_[at_])) ++at_;
    return text_.substr(start, at_ - start);
  }
  std::optional<std::uint64_t> take_number() {
    const std::string_view word = take_name();
    const bool hex = word.starts_with("0x") || word.starts_with("0X");
    const std::string_view digits = hex ? word.substr(2) : word;
    std::uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size()) {
      return std::nullopt;
    }
    return value;
  }
  Error syntax(std::string_view what) const {
    return {ErrorCode::usage,
            fmt::format("evaluate \"{}\": {} at character {}", escape_bytes(text_), what, at_ + 1),
            "examples: init_task.comm, init_task.parent->pid, *(struct net *)0xffff888004a3c000"};
  }
  Error problem(ErrorCode code, std::string what, std::string hint = {}) const {
    return {code, fmt::format("evaluate \"{}\": {}", escape_bytes(text_), what), std::move(hint)};
  }

  // --- the grammar
  Result<Operand> unary() {
    if (++depth_ > max_depth) return syntax("too deep");
    if (take("*")) {
      VMSIGHT_TRY(Operand operand, unary());
      return dereference(operand);
    }
    if (take("&")) {
      VMSIGHT_TRY(Operand operand, unary());
      return address_of(operand);
    }
    if (const auto cast = take_cast()) {
      VMSIGHT_TRY(Operand operand, unary());
      return convert(operand, *cast);
    }
    return postfix();
  }

  Result<Operand> postfix() {
    VMSIGHT_TRY(Operand operand, primary());
    for (;;) {
      const bool arrow = take("->");
      if (arrow || take(".")) {
        VMSIGHT_TRY(operand, member(operand, take_name()));
      } else if (take("[")) {
        const auto index = take_number();
        if (!index || !take("]")) return syntax("expected a number and ']'");
        VMSIGHT_TRY(operand, element(operand, *index));
      } else {
        return operand;
      }
    }
  }

  Result<Operand> primary() {
    if (take("(")) {
      VMSIGHT_TRY(Operand operand, unary());
      if (!take(")")) return syntax("expected ')'");
      return operand;
    }
    skip_space();
    if (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])) != 0) {
      const auto number = take_number();
      if (!number) return syntax("not a number");
      Operand operand;
      operand.value = *number;
      operand.is_number = true;
      return operand;
    }
    const std::string_view name = take_name();
    if (name.empty()) return syntax("expected a name");
    if (take(":")) return module_variable(name, take_name());
    return variable(name);
  }

  /// "(struct page *)": a type this kernel knows, in parentheses.
  std::optional<Operand> take_cast() {
    skip_space();
    const std::size_t close = text_.find(')', at_);
    if (!text_.substr(at_).starts_with("(") || close == std::string_view::npos) return std::nullopt;
    std::string_view name = text_.substr(at_ + 1, close - at_ - 1);
    Operand type;
    while (!name.empty() && (name.back() == ' ' || name.back() == '*')) {
      type.pointers += name.back() == '*' ? 1 : 0;
      name.remove_suffix(1);
    }
    while (name.starts_with(" ")) name.remove_prefix(1);
    const auto id = btf_.find_type(without_module(name));
    if (!id && name != "void") return std::nullopt;
    type.type = id.value_or(0);
    at_ = close + 1;
    return type;
  }

  // --- the meaning
  Result<Operand> module_variable(std::string_view module, std::string_view name) {
    VMSIGHT_TRY(const auto symbols, kernel_.symbols());
    const auto found = std::find_if(symbols.begin(), symbols.end(), [&](const Symbol& symbol) {
      return symbol.module == module && symbol.name == name;
    });
    if (found == symbols.end()) {
      return problem(ErrorCode::not_found,
                     fmt::format("module {} has no symbol \"{}\"", module, name),
                     "`vmsight sym VM PATTERN` lists symbols");
    }
    Operand operand;
    operand.address = found->address;
    return operand;
  }

  Result<Operand> variable(std::string_view name) {
    const auto symbol = kernel_.symbol(name);
    if (!symbol) {
      return problem(ErrorCode::not_found, fmt::format("no symbol {}", name),
                     "`vmsight sym VM PATTERN` lists symbols; a type needs an address: --at ADDR");
    }
    Operand operand;
    operand.address = *symbol;
    const KnownGlobal* known = find_known_global(name);
    if (known != nullptr) operand.pointers = known->pointer ? 1 : 0;
    if (known != nullptr) operand.count = known->count;
    VMSIGHT_TRY(const Btf* own, kernel_.btf());
    const auto described = own->find(name, BtfKind::variable);
    if (described) {
      operand = {.type = own->type(*described).target, .address = *symbol};
    } else if (known != nullptr) {
      operand.type = btf_.find_type(known->type).value_or(0);
    }
    const bool per_cpu =
        described ? is_per_cpu(*own, *described) : known != nullptr && known->per_cpu;
    if (!per_cpu) return operand;
    const std::size_t cpus = kernel_.per_cpu_offsets().size();
    if (!cpu_ || *cpu_ >= cpus) {
      return problem(ErrorCode::usage, fmt::format("{} has a copy on each of {} CPUs", name, cpus),
                     "choose one with --cpu N");
    }
    operand.address = kernel_.per_cpu(*symbol, *cpu_);
    return operand;
  }

  bool is_per_cpu(const Btf& own, TypeId variable) const {
    const auto section = own.find(".data..percpu", BtfKind::data_section);
    if (!section) return false;
    const BtfType type = own.type(*section);
    for (std::uint32_t i = 0; i < type.count; ++i) {
      if (own.section_entry_at(type, i).variable == variable) return true;
    }
    return false;
  }

  bool is_pointer(const Operand& operand) const {
    return operand.pointers > 0 || btf_.resolve(operand.type).kind == BtfKind::pointer;
  }

  /// The number a pointer holds; reads it if it lies in memory.
  Result<std::uint64_t> pointer_value(const Operand& operand) {
    if (!operand.address) return operand.value;
    reader_.clear_fault();
    const std::uint64_t value = reader_.u64(*operand.address);
    if (reader_.ok()) return value;
    reader_.clear_fault();
    Error error = problem(ErrorCode::fault, fmt::format("{} is not mapped", *operand.address));
    error.address = operand.address->raw();
    return error;
  }

  Result<Operand> dereference(const Operand& operand) {
    const BtfType type = btf_.resolve(operand.type);
    if (operand.count != 0 || (operand.pointers == 0 && type.kind == BtfKind::array)) {
      return element(operand, 0);
    }
    if (!is_pointer(operand)) {
      return problem(ErrorCode::usage, "* needs a pointer",
                     "a type can be given: *(struct page *)EXPRESSION");
    }
    VMSIGHT_TRY(const std::uint64_t value, pointer_value(operand));
    Operand target;
    target.type = operand.pointers > 0 ? operand.type : type.target;
    target.pointers = operand.pointers > 0 ? operand.pointers - 1 : 0;
    target.address = GuestVirt(value);
    return target;
  }

  Result<Operand> address_of(const Operand& operand) {
    if (!operand.address || operand.bit_size != 0) {
      return problem(ErrorCode::usage, "& needs an object in memory");
    }
    Operand pointer;
    pointer.type = operand.type;
    pointer.pointers = operand.pointers + 1;
    pointer.value = operand.address->raw();
    return pointer;
  }

  Result<Operand> convert(const Operand& operand, const Operand& cast) {
    VMSIGHT_TRY(const std::uint64_t value, pointer_value(operand));
    Operand result = cast;
    result.value = value;
    return result;
  }

  /// '.' and '->' alike go through a pointer, as gdb's do.
  Result<Operand> member(const Operand& from, std::string_view name) {
    Operand object = from;
    if (is_pointer(from)) {
      VMSIGHT_TRY(object, dereference(from));
    }
    const BtfType type = btf_.resolve(object.type);
    if (!type.is_composite() || object.pointers != 0 || object.count != 0 || !object.address) {
      return problem(ErrorCode::usage,
                     fmt::format("\"{}\" of something that is no structure", name),
                     "a type can be given: ((struct page *)EXPRESSION)->flags");
    }
    const auto place = btf_.place(type.id, name);
    if (!place || name.empty()) {
      return problem(ErrorCode::not_found,
                     fmt::format("{} has no member \"{}\"", type_name(btf_, type.id), name),
                     "`vmsight type VM NAME` shows a structure");
    }
    Operand result;
    result.type = place->type;
    result.address = *object.address + place->bit_offset / 8;
    result.bit_size = place->bit_size;
    result.bit_offset = place->bit_offset % 8;
    return result;
  }

  Result<Operand> element(const Operand& array, std::uint64_t index) {
    Operand base = array;
    const BtfType type = btf_.resolve(array.type);
    if (array.count != 0) {
      base.count = 0;
    } else if (array.pointers == 0 && type.kind == BtfKind::array) {
      base.type = btf_.array(type).element;
    } else {
      VMSIGHT_TRY(base, dereference(array));
    }
    const auto size = base.pointers > 0 ? std::optional<std::uint64_t>(8) : btf_.size_of(base.type);
    if (!size || !base.address) return problem(ErrorCode::usage, "[] needs elements with a size");
    base.address = *base.address + *size * index;
    return base;
  }

  Kernel& kernel_;
  const Btf& btf_;
  Reader& reader_;
  std::string_view text_;
  std::optional<std::size_t> cpu_;
  std::size_t at_ = 0;
  unsigned depth_ = 0;
};

}  // namespace

Result<const Btf*> types_of_expression(Kernel& kernel, std::string_view text) {
  std::string_view module;
  std::size_t from = 0;
  while (const auto qualifier = next_qualifier(text, from)) {
    const std::string_view name = text.substr(qualifier->at, qualifier->length);
    if (!module.empty() && name != module) {
      return Error{ErrorCode::usage,
                   fmt::format("evaluate \"{}\": names two modules", escape_bytes(text))};
    }
    module = name;
    from = qualifier->at + qualifier->length + 1;
  }
  return module.empty() ? kernel.btf() : kernel.btf_of(module);
}

std::string without_module(std::string_view type) {
  const auto qualifier = next_qualifier(type, 0);
  if (!qualifier) return std::string(type);
  return std::string(type.substr(0, qualifier->at)) +
         std::string(type.substr(qualifier->at + qualifier->length + 1));
}

Result<Operand> evaluate_expression(Kernel& kernel, const Btf& btf, Reader& reader,
                                    std::string_view text, std::optional<std::size_t> cpu) {
  if (text.size() > max_length) return Error{ErrorCode::usage, "evaluate: expression too long"};
  return Evaluator(kernel, btf, reader, text, cpu).run();
}

}  // namespace vmsight
