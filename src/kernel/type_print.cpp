// Types as C definitions. C declares inside out ("int (*read[4])(int)"), so a declaration is
// built from the name outwards while the type is followed inwards.
#include "kernel/type_print.h"

#include <fmt/format.h>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernel/guest_text.h"

namespace vmsight {
namespace {

using Json = nlohmann::ordered_json;

constexpr unsigned max_nesting = 32;      // of declarators, and of anonymous members
constexpr unsigned max_nodes = 1u << 14;  // types visited for one definition
constexpr std::size_t max_text = 4u << 20;
constexpr std::size_t max_declarator = 4096;
constexpr std::size_t comment_column = 56;

std::string_view keyword(const BtfType& type) {
  switch (type.kind) {
    case BtfKind::structure:
      return "struct";
    case BtfKind::union_type:
      return "union";
    case BtfKind::enumeration:
    case BtfKind::enumeration64:
      return "enum";
    case BtfKind::forward:
      return type.flag ? "union" : "struct";
    case BtfKind::const_type:
      return "const";
    case BtfKind::volatile_type:
      return "volatile";
    case BtfKind::restrict_type:
      return "restrict";
    default:
      return "";
  }
}

std::string join(std::string left, std::string_view right) {
  if (!left.empty() && !right.empty()) left += ' ';
  return left.append(right);
}

class Declarator {
 public:
  explicit Declarator(const Btf& btf, unsigned& budget) : btf_(btf), budget_(budget) {}

  std::string declare(TypeId id, std::string inner, unsigned depth = 0) {
    if (depth > max_nesting || budget_ == 0 || inner.size() > max_declarator) {
      return join("...", inner);
    }
    --budget_;
    const BtfType type = btf_.type(id);
    switch (type.kind) {
      case BtfKind::void_type:
        return join("void", inner);
      case BtfKind::pointer:
        return pointer(type, std::move(inner), depth);
      case BtfKind::array:
        inner += fmt::format("[{}]", btf_.array(type).count);
        return declare(btf_.array(type).element, std::move(inner), depth + 1);
      case BtfKind::function_proto:
        inner += parameters(type, depth);
        return declare(type.target, std::move(inner), depth + 1);
      case BtfKind::const_type:
      case BtfKind::volatile_type:
      case BtfKind::restrict_type:
        return modifier(type, std::move(inner), depth);
      case BtfKind::type_tag:
        if (!type.flag) inner = join(fmt::format("__{}", type.name), inner);
        return declare(type.target, std::move(inner), depth + 1);
      case BtfKind::function:
      case BtfKind::variable:
        return declare(type.target, std::move(inner), depth + 1);
      default:
        return join(named(type), inner);
    }
  }

  /// "struct page", "pid_t", "struct {...}".
  static std::string named(const BtfType& type) {
    const std::string_view name = type.name.empty() ? "{...}" : type.name;
    return join(std::string(keyword(type)), name);
  }

 private:
  std::string pointer(const BtfType& type, std::string inner, unsigned depth) {
    const BtfKind target = btf_.type(type.target).kind;
    const bool binds_weaker = target == BtfKind::array || target == BtfKind::function_proto;
    inner.insert(0, binds_weaker ? "(*" : "*");
    if (binds_weaker) inner += ')';
    return declare(type.target, std::move(inner), depth + 1);
  }

  /// "const char" but "char *const": of a pointer, the modifier stands behind the star.
  std::string modifier(const BtfType& type, std::string inner, unsigned depth) {
    BtfType target = btf_.type(type.target);
    for (unsigned i = 0; i < max_nesting && target.kind == BtfKind::const_type; ++i) {
      target = btf_.type(target.target);
    }
    if (target.kind == BtfKind::pointer) {
      return declare(type.target, join(std::string(keyword(type)), inner), depth + 1);
    }
    return join(std::string(keyword(type)), declare(type.target, std::move(inner), depth + 1));
  }

  std::string parameters(const BtfType& type, unsigned depth) {
    if (type.count == 0) return "(void)";
    std::string text = "(";
    for (std::uint32_t i = 0; i < type.count; ++i) {
      const BtfParameter parameter = btf_.parameter_at(type, i);
      if (i != 0) text += ", ";
      if (budget_ == 0 || text.size() > max_declarator) return text + "...)";
      const bool variadic = parameter.type == 0 && parameter.name.empty();
      text += variadic ? "..." : declare(parameter.type, std::string(parameter.name), depth + 1);
    }
    return text + ")";
  }

  const Btf& btf_;
  unsigned& budget_;
};

/// The composite or enum without a name that a member's type is, apart from array dimensions:
/// its body is shown in place.
struct Inlined {
  BtfType type;            // void if there is none
  std::string dimensions;  // "[4]"
};

Inlined inlined(const Btf& btf, TypeId id) {
  Inlined result;
  for (unsigned i = 0; i < max_nesting; ++i) {
    const BtfType type = btf.type(id);
    if (type.kind == BtfKind::array) {
      result.dimensions += fmt::format("[{}]", btf.array(type).count);
      id = btf.array(type).element;
      continue;
    }
    if ((type.is_composite() || type.is_enum()) && type.name.empty()) result.type = type;
    break;
  }
  return result;
}

class DefinitionPrinter {
 public:
  explicit DefinitionPrinter(const Btf& btf) : btf_(btf), declarator_(btf, budget_) {}

  std::string print(const BtfType& type) {
    switch (type.kind) {
      case BtfKind::structure:
      case BtfKind::union_type:
      case BtfKind::enumeration:
      case BtfKind::enumeration64:
        body(type, "", 0, 0);
        finish_line(";", size_comment(type));
        break;
      case BtfKind::typedef_name:
        print_typedef(type);
        break;
      case BtfKind::function:
        finish_line(declarator_.declare(type.target, std::string(type.name)) + ";", "");
        break;
      default:
        finish_line(Declarator::named(type) + ";", size_comment(type));
        break;
    }
    return escape_lines(text_);
  }

 private:
  bool full() const { return budget_ == 0 || text_.size() > max_text; }

  /// Ends the current line with a comment in its column.
  void finish_line(std::string_view rest, std::string_view comment) {
    text_ += rest;
    if (!comment.empty()) {
      const std::size_t start = text_.rfind('\n') + 1;  // npos + 1 = 0
      const std::size_t width = text_.size() - start;
      text_.append(width < comment_column ? comment_column - width : 1, ' ');
      text_.append("/* ").append(comment).append(" */");
    }
    text_ += '\n';
  }

  std::string size_comment(const BtfType& type) const {
    if (type.is_composite()) return fmt::format("size: {}, members: {}", type.size, type.count);
    return fmt::format("size: {}", type.size);
  }

  void print_typedef(const BtfType& type) {
    const Inlined target = inlined(btf_, type.target);
    if (target.type.kind == BtfKind::void_type) {
      const auto size = btf_.size_of(type.id);
      return finish_line(
          "typedef " + declarator_.declare(type.target, std::string(type.name)) + ";",
          size ? fmt::format("size: {}", *size) : "");
    }
    text_ += "typedef ";
    body(target.type, "", 0, 0);
    finish_line(fmt::format(" {}{};", type.name, target.dimensions), size_comment(target.type));
  }

  /// "struct name {" to "}", without the end of the last line.
  void body(const BtfType& type, std::string_view indent, std::uint64_t base_bits, unsigned depth) {
    text_ += join(std::string(keyword(type)), type.name);
    text_ += " {\n";
    const std::string inner = std::string(indent) + "    ";
    if (depth > max_nesting || full()) {
      text_ += inner + "...\n";
    } else if (type.is_enum()) {
      enumerators(type, inner);
    } else {
      members(type, inner, base_bits, depth);
    }
    text_.append(indent).append("}");
  }

  void enumerators(const BtfType& type, const std::string& indent) {
    for (std::uint32_t i = 0; i < type.count && text_.size() <= max_text; ++i) {
      const BtfEnumerator enumerator = btf_.enumerator_at(type, i);
      const bool is_signed = type.flag || enumerator.value >= -(1LL << 31);
      text_ += indent + std::string(enumerator.name) + " = ";
      text_ += is_signed ? fmt::format("{},\n", enumerator.value)
                         : fmt::format("{:#x},\n", static_cast<std::uint64_t>(enumerator.value));
    }
  }

  void members(const BtfType& type, const std::string& indent, std::uint64_t base_bits,
               unsigned depth) {
    std::uint64_t end = 0;  // bits from the start of `type` that are spoken for
    for (std::uint32_t i = 0; i < type.count; ++i) {
      if (full()) {
        text_ += indent + "...\n";
        return;
      }
      const BtfMember member = btf_.member_at(type, i);
      if (type.kind == BtfKind::structure) hole(indent, end, member.bit_offset);
      print_member(member, indent, base_bits + member.bit_offset, depth);
      const std::uint64_t bits =
          member.bit_size != 0 ? member.bit_size : btf_.size_of(member.type).value_or(0) * 8;
      end = std::max(end, member.bit_offset + bits);
    }
    if (type.kind == BtfKind::structure) hole(indent, end, std::uint64_t{type.size} * 8);
  }

  void hole(const std::string& indent, std::uint64_t from, std::uint64_t to) {
    if (to <= from) return;
    const bool whole = (to - from) % 8 == 0;
    const std::uint64_t count = whole ? (to - from) / 8 : to - from;
    text_ += fmt::format("{}/* hole: {} {}{} */\n", indent, count, whole ? "byte" : "bit",
                         count == 1 ? "" : "s");
  }

  void print_member(const BtfMember& member, const std::string& indent, std::uint64_t bits,
                    unsigned depth) {
    const std::uint64_t size = btf_.size_of(member.type).value_or(0);
    text_ += indent;
    const Inlined target = inlined(btf_, member.type);
    if (target.type.kind != BtfKind::void_type) {
      body(target.type, indent, bits, depth + 1);
      const std::string name = std::string(member.name) + target.dimensions;
      text_ += name.empty() ? "" : " ";
      return finish_line(name + ";", fmt::format("{:5} {:5}", bits / 8, size));
    }
    std::string line = declarator_.declare(member.type, std::string(member.name));
    if (member.bit_size == 0) {
      return finish_line(line + ";", fmt::format("{:5} {:5}", bits / 8, size));
    }
    const std::uint64_t unit = size == 0 ? 1 : size;
    const std::uint64_t storage = bits / (8 * unit) * unit;
    finish_line(fmt::format("{}:{};", line, member.bit_size),
                fmt::format("{:5}:{:2} {:2}", storage, bits - storage * 8, size));
  }

  const Btf& btf_;
  unsigned budget_ = max_nodes;
  Declarator declarator_;
  std::string text_;
};

class JsonPrinter {
 public:
  explicit JsonPrinter(const Btf& btf) : btf_(btf), declarator_(btf, budget_) {}

  Json describe(const BtfType& type, std::uint64_t base_bits = 0, unsigned depth = 0) {
    Json json;
    json["kind"] = kind_name(type);
    json["name"] = escape_bytes(type.name);
    const auto size = btf_.size_of(type.id);
    json["size"] = size ? Json(*size) : Json();
    if (type.is_composite()) json["members"] = members(type, base_bits, depth);
    if (type.is_enum()) json["enumerators"] = enumerators(type);
    if (type.kind == BtfKind::typedef_name) {
      json["type"] = name_of(type.target);
      const Inlined target = inlined(btf_, type.target);
      if (target.type.is_composite()) json["members"] = members(target.type, base_bits, depth);
      if (target.type.is_enum()) json["enumerators"] = enumerators(target.type);
    }
    if (type.kind == BtfKind::function) add_prototype(json, btf_.type(type.target));
    return json;
  }

 private:
  static std::string_view kind_name(const BtfType& type) {
    switch (type.kind) {
      case BtfKind::typedef_name:
        return "typedef";
      case BtfKind::integer:
        return "int";
      case BtfKind::floating:
        return "float";
      case BtfKind::function:
        return "function";
      default:
        return keyword(type);
    }
  }

  std::string name_of(TypeId id) { return escape_bytes(declarator_.declare(id, "")); }

  Json members(const BtfType& type, std::uint64_t base_bits, unsigned depth) {
    Json list = Json::array();
    for (std::uint32_t i = 0; i < type.count && budget_ != 0 && depth <= max_nesting; ++i) {
      list.push_back(member(btf_.member_at(type, i), base_bits, depth));
    }
    return list;
  }

  Json member(const BtfMember& member, std::uint64_t base_bits, unsigned depth) {
    const std::uint64_t bits = base_bits + member.bit_offset;
    const auto size = btf_.size_of(member.type);
    Json json;
    json["name"] = escape_bytes(member.name);
    json["type"] = name_of(member.type);
    json["offset"] = bits / 8;
    json["size"] = size ? Json(*size) : Json();
    if (member.bit_size != 0) {
      json["bit_offset"] = bits % 8;
      json["bit_size"] = member.bit_size;
    }
    const Inlined target = inlined(btf_, member.type);
    if (target.type.is_composite()) json["members"] = members(target.type, bits, depth + 1);
    return json;
  }

  Json enumerators(const BtfType& type) {
    Json list = Json::array();
    for (std::uint32_t i = 0; i < type.count && i < max_nodes; ++i) {
      const BtfEnumerator enumerator = btf_.enumerator_at(type, i);
      list.push_back({{"name", escape_bytes(enumerator.name)}, {"value", enumerator.value}});
    }
    return list;
  }

  void add_prototype(Json& json, const BtfType& prototype) {
    if (prototype.kind != BtfKind::function_proto) return;
    json["returns"] = name_of(prototype.target);
    json["parameters"] = Json::array();
    for (std::uint32_t i = 0; i < prototype.count && budget_ != 0; ++i) {
      const BtfParameter parameter = btf_.parameter_at(prototype, i);
      json["parameters"].push_back(
          {{"name", escape_bytes(parameter.name)}, {"type", name_of(parameter.type)}});
    }
  }

  const Btf& btf_;
  unsigned budget_ = max_nodes;
  Declarator declarator_;
};

Result<BtfType> find_definition(const Btf& btf, std::string_view name) {
  if (const auto id = btf.find_type(name)) return btf.type(*id);
  if (const auto id = btf.find(name, BtfKind::function)) return btf.type(*id);
  return Error{ErrorCode::not_found,
               fmt::format("find type {}: the kernel's BTF has none", escape_bytes(name)),
               "a struct, union, enum, typedef or kernel function, such as task_struct"};
}

}  // namespace

Result<std::string> print_type(const Btf& btf, std::string_view name) {
  VMSIGHT_TRY(const BtfType type, find_definition(btf, name));
  return DefinitionPrinter(btf).print(type);
}

Result<nlohmann::ordered_json> type_to_json(const Btf& btf, std::string_view name) {
  VMSIGHT_TRY(const BtfType type, find_definition(btf, name));
  nlohmann::ordered_json json{{"schema", "vmsight.type/1"}};
  json.update(JsonPrinter(btf).describe(type));
  return json;
}

std::string declaration(const Btf& btf, TypeId id, std::string_view name) {
  unsigned budget = max_declarator;
  return escape_bytes(Declarator(btf, budget).declare(id, std::string(name)));
}

std::string type_name(const Btf& btf, TypeId id) { return declaration(btf, id, ""); }

}  // namespace vmsight
