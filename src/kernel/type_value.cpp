// Reads an object of guest memory as a tree of values. Its bytes are copied once and interpreted
// from the copy, so that all of a structure is from one moment and each page is touched once.
#include <fmt/format.h>
#include <algorithm>
#include <cstring>

#include "kernel/architecture.h"
#include "kernel/guest_text.h"
#include "kernel/type_expression.h"
#include "kernel/type_print.h"

namespace vmsight {
namespace {

constexpr std::uint64_t max_bytes = 1u << 20;  // of one object
constexpr unsigned max_values = 1u << 16;      // values of one tree
constexpr std::size_t max_members = 4096;      // of one structure; kernels have up to 600
constexpr unsigned max_level = 48;             // recursion
constexpr std::uint32_t max_read_elements = 1u << 16;
constexpr std::size_t max_string = 256;                // behind a char pointer
constexpr std::uint64_t max_symbol_offset = 1u << 16;  // beyond, a symbol says nothing

using Kind = TypedValue::Kind;

TypedValue leaf(Kind kind, std::string text, std::uint64_t number = 0) {
  TypedValue value;
  value.kind = kind;
  value.text = std::move(text);
  value.number = number;
  return value;
}

bool same_value(const TypedValue& a, const TypedValue& b) {
  return a.kind == b.kind && a.text == b.text && a.number == b.number &&
         std::equal(a.children.begin(), a.children.end(), b.children.begin(), b.children.end(),
                    [](const TypedValue& x, const TypedValue& y) {
                      return x.name == y.name && x.first == y.first && x.last == y.last &&
                             same_value(x, y);
                    });
}

class ValueReader {
 public:
  ValueReader(Kernel& kernel, const Btf& btf, Reader& reader, const PrintRequest& request)
      : kernel_(kernel), btf_(btf), reader_(reader), request_(request) {}

  TypedValue read(const Operand& operand);

 private:
  TypedValue object(TypeId id, std::uint64_t bit, std::uint32_t bit_size, unsigned depth);
  TypedValue structure(const BtfType& type, std::uint64_t bit, unsigned depth);
  void add_members(TypedValue& into, const BtfType& type, std::uint64_t bit, unsigned depth);
  TypedValue array(TypeId element, std::uint32_t count, std::uint64_t bit, unsigned depth);
  TypedValue characters(std::uint32_t count, std::uint64_t bit) const;
  TypedValue integer(const BtfType& type, std::uint64_t bit, std::uint32_t bit_size) const;
  TypedValue enumeration(const BtfType& type, std::uint64_t bit, std::uint32_t bit_size) const;
  TypedValue pointer(TypeId target, bool to_object, std::uint64_t address);

  bool is_char(TypeId id) const {
    const BtfType type = btf_.resolve(id);
    return type.kind == BtfKind::integer && type.size == 1 && type.name == "char";
  }
  void load(GuestVirt address, std::uint64_t size);
  /// At most 64 bits of the copy.
  std::optional<std::uint64_t> bits(std::uint64_t bit, std::uint64_t count) const;
  std::string symbol_at(std::uint64_t address);
  std::string string_at(std::uint64_t address);
  TypedValue unreadable() const { return leaf(Kind::unreadable, "not mapped"); }

  Kernel& kernel_;
  const Btf& btf_;
  Reader& reader_;
  const PrintRequest& request_;
  std::vector<std::byte> bytes_;  // of the object, as far as they are mapped
  bool cut_ = false;              // the object is larger than max_bytes
  unsigned budget_ = max_values;
  unsigned level_ = 0;
};

TypedValue ValueReader::read(const Operand& operand) {
  if (!operand.address) {
    if (operand.is_number) {
      return leaf(Kind::unsigned_number, fmt::format("{:#x}", operand.value), operand.value);
    }
    return operand.pointers > 0
               ? pointer(operand.type, operand.pointers == 1, operand.value)
               : leaf(Kind::unsigned_number, fmt::to_string(operand.value), operand.value);
  }
  if (operand.pointers > 0) {
    load(*operand.address, 8);
    const auto address = bits(0, 64);
    return address ? pointer(operand.type, operand.pointers == 1, *address) : unreadable();
  }
  const std::uint64_t size = btf_.size_of(operand.type).value_or(0);
  if (operand.count != 0) {
    load(*operand.address, std::min(size, max_bytes) * operand.count);
    return array(operand.type, operand.count, 0, 0);
  }
  load(*operand.address, operand.bit_size != 0 ? 9 : size);
  return object(operand.type, operand.bit_offset, operand.bit_size, 0);
}

void ValueReader::load(GuestVirt address, std::uint64_t size) {
  cut_ = size > max_bytes;
  bytes_.resize(std::min(size, max_bytes));
  reader_.clear_fault();
  bytes_.resize(reader_.copy(address, bytes_));
  cut_ = cut_ && reader_.ok();
  reader_.clear_fault();
}

std::optional<std::uint64_t> ValueReader::bits(std::uint64_t bit, std::uint64_t count) const {
  const std::uint64_t first = bit / 8;
  const std::uint64_t length = (bit % 8 + count + 7) / 8;
  if (length > 9 || first > bytes_.size() || bytes_.size() - first < length) return std::nullopt;
  unsigned __int128 raw = 0;
  std::memcpy(&raw, bytes_.data() + first, length);
  const auto value = static_cast<std::uint64_t>(raw >> (bit % 8));
  return count >= 64 ? value : value & ((1ULL << count) - 1);
}

TypedValue ValueReader::object(TypeId id, std::uint64_t bit, std::uint32_t bit_size,
                               unsigned depth) {
  if (budget_ == 0) return leaf(Kind::omitted, "...");
  --budget_;
  if (level_ >= max_level) return leaf(Kind::omitted, "...");
  ++level_;
  const BtfType type = btf_.resolve(id);
  TypedValue value = leaf(Kind::unreadable, "no value");
  if (type.is_composite()) {
    value = structure(type, bit, depth);
  } else if (type.is_enum()) {
    value = enumeration(type, bit, bit_size);
  } else if (type.kind == BtfKind::integer) {
    value = integer(type, bit, bit_size);
  } else if (type.kind == BtfKind::array) {
    value = array(btf_.array(type).element, btf_.array(type).count, bit, depth);
  } else if (type.kind == BtfKind::pointer) {
    const auto address = bits(bit, 64);
    value = address ? pointer(type.target, true, *address) : unreadable();
  }
  --level_;
  return value;
}

TypedValue ValueReader::structure(const BtfType& type, std::uint64_t bit, unsigned depth) {
  if (depth > request_.depth) return leaf(Kind::omitted, "{...}");
  TypedValue value = leaf(Kind::structure, "");
  add_members(value, type, bit, depth);
  return value;
}

/// Members of anonymous members are shown as the structure's own.
void ValueReader::add_members(TypedValue& into, const BtfType& type, std::uint64_t bit,
                              unsigned depth) {
  if (++level_ < max_level) {
    for (std::uint32_t i = 0; i < type.count && budget_ != 0; ++i) {
      if (into.children.size() >= max_members) break;
      const BtfMember member = btf_.member_at(type, i);
      const std::uint64_t at = bit + member.bit_offset;
      const BtfType inner = btf_.resolve(member.type);
      if (member.name.empty() && inner.is_composite()) {
        --budget_;
        add_members(into, inner, at, depth);
        continue;
      }
      TypedValue value = object(member.type, at, member.bit_size, depth + 1);
      value.name = escape_bytes(member.name);
      into.children.push_back(std::move(value));
    }
  }
  --level_;
}

TypedValue ValueReader::array(TypeId element, std::uint32_t count, std::uint64_t bit,
                              unsigned depth) {
  if (is_char(element)) return characters(count, bit);
  const std::uint64_t size = btf_.size_of(element).value_or(0);
  TypedValue value = leaf(Kind::array, "");
  if (size == 0) return value;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint64_t at = bit / 8 + size * i;
    const bool past = at >= bytes_.size();
    bool end = past || i >= max_read_elements || budget_ == 0;
    TypedValue item = end ? leaf(Kind::omitted, "...") : object(element, at * 8, 0, depth);
    if (past && !cut_) item = unreadable();
    if (!end && !value.children.empty() && same_value(value.children.back(), item)) {
      value.children.back().last = i;
      continue;
    }
    if (value.children.size() >= request_.max_elements) {
      item = leaf(Kind::omitted, "...");
      end = true;
    }
    item.first = item.last = i;
    value.children.push_back(std::move(item));
    if (end) break;
  }
  return value;
}

TypedValue ValueReader::characters(std::uint32_t count, std::uint64_t bit) const {
  const std::uint64_t at = bit / 8;
  if (at >= bytes_.size()) return count == 0 ? leaf(Kind::string, "") : unreadable();
  const char* text = reinterpret_cast<const char*>(bytes_.data()) + at;
  const std::size_t length = std::min<std::size_t>(count, bytes_.size() - at);
  return leaf(Kind::string, std::string(text, ::strnlen(text, length)));
}

TypedValue ValueReader::integer(const BtfType& type, std::uint64_t bit,
                                std::uint32_t bit_size) const {
  const BtfInteger details = btf_.integer(type);
  const std::uint32_t width = bit_size != 0 ? bit_size : type.size * 8;
  if (type.size == 16 && bit_size == 0) {
    const auto low = bits(bit, 64), high = bits(bit + 64, 64);
    if (!low || !high) return unreadable();
    return leaf(Kind::wide_number, fmt::format("{:#x}{:016x}", *high, *low));
  }
  if (width == 0 || width > 64) return leaf(Kind::unreadable, "no value");
  const auto raw = bits(bit, width);
  if (!raw) return unreadable();
  if (details.is_bool && *raw <= 1) return leaf(Kind::boolean, *raw != 0 ? "true" : "false", *raw);
  if (!details.is_signed) {
    // The upper half of 64 bits holds addresses and masks.
    const bool high = (*raw >> 63) != 0;
    return leaf(Kind::unsigned_number, high ? fmt::format("{:#x}", *raw) : fmt::to_string(*raw),
                *raw);
  }
  const auto extended = static_cast<std::int64_t>(*raw << (64 - width)) >> (64 - width);
  return leaf(Kind::signed_number, fmt::to_string(extended), static_cast<std::uint64_t>(extended));
}

TypedValue ValueReader::enumeration(const BtfType& type, std::uint64_t bit,
                                    std::uint32_t bit_size) const {
  const std::uint32_t width = bit_size != 0 ? bit_size : type.size * 8;
  if (width == 0 || width > 64) return leaf(Kind::unreadable, "no value");
  const auto raw = bits(bit, width);
  if (!raw) return unreadable();
  const std::uint64_t mask = width == 64 ? ~0ULL : (1ULL << width) - 1;
  for (std::uint32_t i = 0; i < type.count; ++i) {
    const BtfEnumerator enumerator = btf_.enumerator_at(type, i);
    if ((static_cast<std::uint64_t>(enumerator.value) & mask) == *raw) {
      return leaf(Kind::enumerator, escape_bytes(enumerator.name), *raw);
    }
  }
  return leaf(Kind::unsigned_number, fmt::to_string(*raw), *raw);
}

TypedValue ValueReader::pointer(TypeId target, bool to_object, std::uint64_t address) {
  std::string text = fmt::format("{:#x}", address);
  const bool to_text = to_object && address != 0 && is_char(target);
  if (to_text) text += string_at(address);
  if (!to_text && address >= kernel_.space().architecture().image_base.raw())
    text += symbol_at(address);
  return leaf(Kind::pointer, std::move(text), address);
}

std::string ValueReader::symbol_at(std::uint64_t address) {
  const auto location = kernel_.locate(GuestVirt(address));
  if (!location || location->offset >= max_symbol_offset) return "";
  std::string text = " <" + escape_bytes(location->name);
  if (location->offset != 0) text += fmt::format("+{:#x}", location->offset);
  if (!location->module.empty()) text += fmt::format(" [{}]", escape_bytes(location->module));
  return text + ">";
}

std::string ValueReader::string_at(std::uint64_t address) {
  std::array<char, max_string> buffer;
  reader_.clear_fault();
  const std::string_view text = reader_.c_string(GuestVirt(address), buffer);
  const bool readable = reader_.ok();
  reader_.clear_fault();
  if (!readable) return "";
  return " " + quote_bytes(text) + (text.size() == buffer.size() ? "..." : "");
}

std::string written_type(const Btf& btf, const Operand& operand) {
  if (operand.is_number) return "number";
  std::string text = type_name(btf, operand.type);
  if (operand.pointers > 0) text += ' ';
  text.append(operand.pointers, '*');
  if (operand.count != 0) text += fmt::format(" [{}]", operand.count);
  return text;
}

Result<Operand> resolve(Kernel& kernel, const Btf& btf, Reader& reader,
                        const PrintRequest& request) {
  if (!request.address) {
    return evaluate_expression(kernel, btf, reader, request.expression, request.cpu);
  }
  const auto id = btf.find_type(without_module(request.expression));
  if (!id) {
    return Error{ErrorCode::not_found,
                 fmt::format("print {}: the kernel's BTF has no such type",
                             escape_bytes(request.expression)),
                 "with --at, print takes a type such as 'struct page', a typedef or MODULE:NAME"};
  }
  Operand operand;
  operand.type = *id;
  operand.address = request.address;
  return operand;
}

}  // namespace

Result<Printed> evaluate(Kernel& kernel, Reader& reader, const PrintRequest& request) {
  VMSIGHT_TRY(const Btf* btf, types_of_expression(kernel, request.expression));
  VMSIGHT_TRY(const Operand operand, resolve(kernel, *btf, reader, request));
  if (operand.address && operand.pointers == 0 && !btf->size_of(operand.type)) {
    return Error{ErrorCode::usage,
                 fmt::format("print {}: its type is not known", escape_bytes(request.expression)),
                 fmt::format("give it: '*(struct NAME *)&{}'", escape_bytes(request.expression))};
  }
  Printed printed;
  printed.type = written_type(*btf, operand);
  printed.address = operand.address;
  printed.value = ValueReader(kernel, *btf, reader, request).read(operand);
  return printed;
}

}  // namespace vmsight
