// Questions about types by name: members by path, sizes, enumerators. References in the type
// graph may form cycles and its arrays may claim any length, so each walk has a budget.
#include <charconv>
#include <limits>

#include "kernel/btf.h"

namespace vmsight {
namespace {

constexpr unsigned max_chain = 64;          // typedefs and modifiers of one type
constexpr unsigned max_depth = 16;          // anonymous members in each other; array dimensions
constexpr unsigned max_members = 1u << 17;  // looked at for one name

/// One component of a path: "name", or "name[1][2]".
struct Component {
  std::string_view name;
  std::string_view subscripts;
};

/// Takes the first component off the path.
Component next_component(std::string_view& path) {
  const std::size_t dot = path.find('.');
  const std::string_view text = path.substr(0, dot);
  path.remove_prefix(dot == std::string_view::npos ? path.size() : dot + 1);
  const std::size_t bracket = text.find('[');
  if (bracket == std::string_view::npos) return {text, {}};
  return {text.substr(0, bracket), text.substr(bracket)};
}

/// Takes the first "[n]" off; nullopt if it is not one.
std::optional<std::uint32_t> next_subscript(std::string_view& text) {
  const std::size_t end = text.find(']');
  if (text.empty() || text[0] != '[' || end == std::string_view::npos) return std::nullopt;
  std::uint32_t index = 0;
  const auto [stop, error] = std::from_chars(text.data() + 1, text.data() + end, index);
  if (error != std::errc{} || stop != text.data() + end) return std::nullopt;
  text.remove_prefix(end + 1);
  return index;
}

class MemberSearch {
 public:
  explicit MemberSearch(const Btf& btf) : btf_(btf) {}

  std::optional<BtfPlace> find(const BtfType& composite, std::string_view name, std::uint64_t bits,
                               unsigned depth) {
    if (depth > max_depth) return std::nullopt;
    for (std::uint32_t i = 0; i < composite.count; ++i) {
      if (budget_ == 0) return std::nullopt;
      --budget_;
      const BtfMember member = btf_.member_at(composite, i);
      const std::uint64_t at = bits + member.bit_offset;
      if (member.name == name) return BtfPlace{member.type, at, member.bit_size};
      if (!member.name.empty()) continue;
      const BtfType inner = btf_.resolve(member.type);
      if (!inner.is_composite()) continue;
      if (auto place = find(inner, name, at, depth + 1)) return place;
      if (budget_ == 0) return std::nullopt;
    }
    return std::nullopt;
  }

 private:
  const Btf& btf_;
  unsigned budget_ = max_members;
};

bool apply_subscripts(const Btf& btf, std::string_view subscripts, BtfPlace& place) {
  while (!subscripts.empty()) {
    const std::optional<std::uint32_t> index = next_subscript(subscripts);
    const BtfType type = btf.resolve(place.type);
    if (!index || type.kind != BtfKind::array) return false;
    const BtfArray array = btf.array(type);
    const std::optional<std::uint64_t> size = btf.size_of(array.element);
    // A flexible array has count 0: any index may be right.
    if (!size || (array.count != 0 && *index >= array.count)) return false;
    if (*size > std::numeric_limits<std::uint32_t>::max()) return false;
    place = {array.element, place.bit_offset + *size * *index * 8, 0};
  }
  return true;
}

std::uint64_t element_count(const Btf& btf, TypeId id) {
  std::uint64_t count = 1;
  BtfType type = btf.resolve(id);
  for (unsigned i = 0; i < max_depth && type.kind == BtfKind::array; ++i) {
    const BtfArray array = btf.array(type);
    count *= array.count;
    if (count > std::numeric_limits<std::uint32_t>::max()) break;
    type = btf.resolve(array.element);
  }
  return count;
}

std::optional<Member> member_of(const Btf& btf, const BtfPlace& place) {
  const std::optional<std::uint64_t> size = btf.size_of(place.type);
  if (!size) return std::nullopt;
  std::uint64_t offset = place.bit_offset / 8;
  Member member;
  if (place.bit_size != 0) {
    // The storage unit that C gives a bitfield, unless the structure is packed.
    const std::uint64_t unit = *size == 0 || *size > 8 ? 1 : *size;
    offset = place.bit_offset / (8 * unit) * unit;
    if (place.bit_offset - offset * 8 + place.bit_size > 64) offset = place.bit_offset / 8;
    member.bit_offset = static_cast<std::uint8_t>(place.bit_offset - offset * 8);
    member.bit_size = static_cast<std::uint8_t>(place.bit_size);
  }
  const std::uint64_t count = element_count(btf, place.type);
  constexpr std::uint64_t limit = std::numeric_limits<std::uint32_t>::max();
  if (offset > limit || *size > limit || count > limit) return std::nullopt;
  member.offset = static_cast<std::uint32_t>(offset);
  member.size = static_cast<std::uint32_t>(*size);
  member.count = static_cast<std::uint32_t>(count);
  return member;
}

}  // namespace

std::optional<BtfPlace> Btf::place(TypeId type, std::string_view path) const {
  BtfPlace place{type, 0, 0};
  while (!path.empty()) {
    const Component component = next_component(path);
    const BtfType composite = resolve(place.type);
    if (component.name.empty() || !composite.is_composite()) return std::nullopt;
    const auto found = MemberSearch(*this).find(composite, component.name, place.bit_offset, 0);
    if (!found) return std::nullopt;
    place = *found;
    if (!apply_subscripts(*this, component.subscripts, place)) return std::nullopt;
  }
  return place;
}

std::optional<Member> Btf::member(TypeId type, std::string_view path) const {
  const std::optional<BtfPlace> found = place(type, path);
  return found ? member_of(*this, *found) : std::nullopt;
}

std::optional<Member> Btf::member(std::string_view type, std::string_view path) const {
  const std::optional<TypeId> id = find_type(type);
  if (!id || path.empty()) return std::nullopt;
  return member(*id, path);
}

std::optional<TypeId> Btf::find_type(std::string_view name) const {
  constexpr std::pair<std::string_view, BtfKind> tagged[] = {
      {"struct ", BtfKind::structure}, {"union ", BtfKind::union_type},
      {"enum ", BtfKind::enumeration}, {"enum ", BtfKind::enumeration64},
      {"", BtfKind::structure},        {"", BtfKind::union_type},
      {"", BtfKind::typedef_name},     {"", BtfKind::enumeration},
      {"", BtfKind::enumeration64},    {"", BtfKind::integer},
      {"", BtfKind::floating}};
  for (const auto& [prefix, kind] : tagged) {
    if (!name.starts_with(prefix)) continue;
    if (const auto id = find(name.substr(prefix.size()), kind)) return id;
  }
  return std::nullopt;
}

BtfType Btf::resolve(TypeId id) const {
  for (unsigned i = 0; i < max_chain; ++i) {
    const BtfType next = type(id);
    switch (next.kind) {
      case BtfKind::typedef_name:
      case BtfKind::volatile_type:
      case BtfKind::const_type:
      case BtfKind::restrict_type:
      case BtfKind::type_tag:
        id = next.target;
        break;
      default:
        return next;
    }
  }
  return {};
}

std::optional<std::uint64_t> Btf::size_of(TypeId id) const {
  std::uint64_t count = 1;
  for (unsigned i = 0; i < max_depth; ++i) {
    const BtfType type = resolve(id);
    std::uint64_t size = type.size;
    switch (type.kind) {
      case BtfKind::array: {
        const BtfArray array = this->array(type);
        if (__builtin_mul_overflow(count, array.count, &count)) return std::nullopt;
        id = array.element;
        continue;
      }
      case BtfKind::variable:
        id = type.target;
        continue;
      case BtfKind::pointer:
        size = 8;
        break;
      case BtfKind::integer:
      case BtfKind::floating:
      case BtfKind::structure:
      case BtfKind::union_type:
      case BtfKind::enumeration:
      case BtfKind::enumeration64:
      case BtfKind::data_section:
        break;
      default:
        return std::nullopt;
    }
    if (__builtin_mul_overflow(size, count, &size)) return std::nullopt;
    return size;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> Btf::size_of(std::string_view name) const {
  const std::optional<TypeId> id = find_type(name);
  return id ? size_of(*id) : std::nullopt;
}

std::optional<std::int64_t> Btf::enumerator(std::string_view name) const {
  for (TypeId id = first_id_; id < end_id(); ++id) {
    const BtfType candidate = type(id);
    if (!candidate.is_enum()) continue;
    for (std::uint32_t i = 0; i < candidate.count; ++i) {
      const BtfEnumerator enumerator = enumerator_at(candidate, i);
      if (enumerator.name == name) return enumerator.value;
    }
  }
  return base_ != nullptr ? base_->enumerator(name) : std::nullopt;
}

}  // namespace vmsight
