#include "kernel/btf.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>

namespace vmsight {
namespace {

constexpr std::uint32_t head_size = 12;       // struct btf_type
constexpr std::size_t max_blob = 256u << 20;  // 50 times today's largest
constexpr std::size_t max_name = 512;         // KSYM_NAME_LEN
constexpr std::size_t max_same_hash = 4096;   // candidates looked at in one bucket

struct Header {  // struct btf_header
  std::uint16_t magic;
  std::uint8_t version, flags;
  std::uint32_t header_size, type_offset, type_size, string_offset, string_size;
};
static_assert(sizeof(Header) == 24);

Error bad(std::string what) { return {ErrorCode::bad_data, "parse BTF: " + std::move(what)}; }

/// Bytes that follow the head; nullopt for a kind that this program does not know.
std::optional<std::uint64_t> body_size(BtfKind kind, std::uint64_t count) {
  switch (kind) {
    case BtfKind::integer:
    case BtfKind::variable:
    case BtfKind::decl_tag:
      return 4;
    case BtfKind::array:
      return 12;
    case BtfKind::structure:
    case BtfKind::union_type:
    case BtfKind::data_section:
    case BtfKind::enumeration64:
      return 12 * count;
    case BtfKind::enumeration:
    case BtfKind::function_proto:
      return 8 * count;
    case BtfKind::pointer:
    case BtfKind::forward:
    case BtfKind::typedef_name:
    case BtfKind::volatile_type:
    case BtfKind::const_type:
    case BtfKind::restrict_type:
    case BtfKind::function:
    case BtfKind::floating:
    case BtfKind::type_tag:
      return 0;
    case BtfKind::void_type:
      break;
  }
  return std::nullopt;
}

/// The third word of the head is a type, not a size.
bool has_target(BtfKind kind) {
  switch (kind) {
    case BtfKind::pointer:
    case BtfKind::typedef_name:
    case BtfKind::volatile_type:
    case BtfKind::const_type:
    case BtfKind::restrict_type:
    case BtfKind::function:
    case BtfKind::function_proto:
    case BtfKind::variable:
    case BtfKind::decl_tag:
    case BtfKind::type_tag:
      return true;
    default:
      return false;
  }
}

std::uint32_t load32(const std::byte* at) {
  std::uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// What the words of a type refer to, at most; checked once all types are known.
struct Extent {
  std::uint32_t type = 0, name = 0;
  void see_type(std::uint32_t id) { type = std::max(type, id); }
  void see_name(std::uint32_t offset) { name = std::max(name, offset); }

  void see_body(BtfKind kind, std::uint32_t count, const std::byte* body) {
    switch (kind) {
      case BtfKind::array:
        see_type(load32(body));
        break;
      case BtfKind::structure:
      case BtfKind::union_type:
        for (std::uint32_t i = 0; i < count; ++i, body += 12) {
          see_name(load32(body));
          see_type(load32(body + 4));
        }
        break;
      case BtfKind::data_section:
        for (std::uint32_t i = 0; i < count; ++i, body += 12) see_type(load32(body));
        break;
      case BtfKind::function_proto:
        for (std::uint32_t i = 0; i < count; ++i, body += 8) {
          see_name(load32(body));
          see_type(load32(body + 4));
        }
        break;
      case BtfKind::enumeration:
        for (std::uint32_t i = 0; i < count; ++i, body += 8) see_name(load32(body));
        break;
      case BtfKind::enumeration64:
        for (std::uint32_t i = 0; i < count; ++i, body += 12) see_name(load32(body));
        break;
      default:
        break;
    }
  }
};

/// 8 bytes at a time; only spreads names over buckets, so quality matters little.
std::uint32_t hash_name(std::string_view name) {
  constexpr std::uint64_t multiplier = 0x9e3779b97f4a7c15ULL;  // 2^64 / golden ratio
  std::uint64_t hash = name.size();
  while (name.size() >= 8) {
    std::uint64_t word;
    std::memcpy(&word, name.data(), 8);
    hash = (hash ^ word) * multiplier;
    hash ^= hash >> 29;
    name.remove_prefix(8);
  }
  std::uint64_t word = 0;
  if (!name.empty()) std::memcpy(&word, name.data(), name.size());
  hash = (hash ^ word) * multiplier;
  return static_cast<std::uint32_t>(hash >> 32);
}

bool has_searchable_name(const BtfType& type) {
  return !type.name.empty() && type.kind != BtfKind::decl_tag && type.kind != BtfKind::type_tag;
}

}  // namespace

Result<std::unique_ptr<Btf>> Btf::parse(std::vector<std::byte> blob, const Btf* base) {
  std::unique_ptr<Btf> btf(new Btf);
  btf->blob_ = std::move(blob);
  btf->base_ = base;
  if (base != nullptr) {
    btf->first_id_ = base->end_id();
    btf->first_string_ = base->first_string_ + base->strings_size_;
    btf->enums_have_sign_ = base->enums_have_sign_;
  }
  VMSIGHT_TRY_VOID(btf->read_header());
  VMSIGHT_TRY_VOID(btf->read_types());
  btf->index_names();
  return btf;
}

Result<void> Btf::read_header() {
  Header header{};
  if (blob_.size() < sizeof header || blob_.size() > max_blob) {
    return bad(fmt::format("a blob of {} bytes", blob_.size()));
  }
  std::memcpy(&header, blob_.data(), sizeof header);
  if (header.magic != 0xeb9f) return bad(fmt::format("magic {:#x}", header.magic));
  if (header.version != 1) {
    return Error{ErrorCode::unsupported, fmt::format("parse BTF: version {}", header.version)};
  }
  const std::uint64_t start = header.header_size;
  const std::uint64_t types_end = start + header.type_offset + header.type_size;
  const std::uint64_t strings_end = start + header.string_offset + header.string_size;
  if (start < sizeof header || types_end > blob_.size() || strings_end > blob_.size()) {
    return bad("a section leaves the blob");
  }
  types_start_ = static_cast<std::uint32_t>(start + header.type_offset);
  types_end_ = static_cast<std::uint32_t>(types_end);
  strings_start_ = static_cast<std::uint32_t>(start + header.string_offset);
  strings_size_ = header.string_size;
  // Offset 0 is the empty name; the NUL at the end ends every string. Split BTF may have none.
  const std::byte* strings = blob_.data() + strings_start_;
  if (strings_size_ == 0 ? base_ == nullptr : strings[strings_size_ - 1] != std::byte{0}) {
    return bad("strings are not terminated");
  }
  if (base_ == nullptr && strings[0] != std::byte{0}) return bad("the first string is not empty");
  return {};
}

Result<void> Btf::read_types() {
  offsets_.reserve((types_end_ - types_start_) / head_size);
  Extent extent;
  for (std::uint32_t at = types_start_; at != types_end_;) {
    if (types_end_ - at < head_size) return bad("the last type is cut off");
    const std::byte* head = blob_.data() + at;
    const std::uint32_t info = load32(head + 4);
    const auto kind = static_cast<BtfKind>(info >> 24 & 0x7f);
    const std::uint32_t count = info & 0xffffff;
    const std::optional<std::uint64_t> rest = body_size(kind, count);
    if (!rest) {
      return Error{ErrorCode::unsupported,
                   fmt::format("parse BTF: type {} is of kind {}", end_id(), info >> 24 & 0x7f)};
    }
    if (*rest > types_end_ - at - head_size) {
      return bad(fmt::format("type {} is cut off", end_id()));
    }
    extent.see_name(load32(head));
    if (has_target(kind)) extent.see_type(load32(head + 8));
    extent.see_body(kind, count, head + head_size);
    if (kind == BtfKind::enumeration && info >> 31 != 0) enums_have_sign_ = true;
    offsets_.push_back(at);
    at += head_size + static_cast<std::uint32_t>(*rest);
  }
  if (extent.type >= end_id() && extent.type != 0) {
    return bad(fmt::format("a reference to type {} of {}", extent.type, end_id()));
  }
  if (extent.name >= first_string_ + strings_size_ && extent.name != 0) {
    return bad(fmt::format("a name at {} of {}", extent.name, first_string_ + strings_size_));
  }
  return {};
}

void Btf::index_names() {
  constexpr std::uint32_t unnamed = ~0u;
  std::uint32_t buckets = 1;
  while (buckets < offsets_.size()) buckets *= 2;
  std::vector<std::uint32_t> bucket_of(offsets_.size());
  bucket_starts_.assign(buckets + 1, 0);
  std::size_t named = 0;
  for (std::size_t i = 0; i < offsets_.size(); ++i) {
    const BtfType head = type(first_id_ + static_cast<TypeId>(i));
    const bool searchable = has_searchable_name(head);
    bucket_of[i] = searchable ? hash_name(head.name) & (buckets - 1) : unnamed;
    if (!searchable) continue;
    ++bucket_starts_[bucket_of[i]];
    ++named;
  }
  std::uint32_t end = 0;
  for (std::uint32_t& start : bucket_starts_) start = end += start;
  // Filled from the back, each bucket ends up sorted by id and its start where it belongs.
  ids_by_name_.resize(named);
  for (std::size_t i = offsets_.size(); i-- > 0;) {
    if (bucket_of[i] == unnamed) continue;
    ids_by_name_[--bucket_starts_[bucket_of[i]]] = first_id_ + static_cast<TypeId>(i);
  }
}

std::optional<TypeId> Btf::find(std::string_view name, BtfKind kind) const {
  const std::uint32_t bucket =
      hash_name(name) & (static_cast<std::uint32_t>(bucket_starts_.size()) - 2);
  const std::uint32_t start = bucket_starts_[bucket];
  const std::size_t length =
      std::min<std::size_t>(bucket_starts_[bucket + 1] - start, max_same_hash);
  std::optional<TypeId> empty;
  for (std::size_t i = 0; i < length; ++i) {
    const BtfType candidate = type(ids_by_name_[start + i]);
    if (candidate.kind != kind || candidate.name != name) continue;
    if (!candidate.is_composite() || candidate.count != 0) return candidate.id;
    if (!empty) empty = candidate.id;
  }
  if (base_ == nullptr) return empty;
  const std::optional<TypeId> in_base = base_->find(name, kind);
  return empty && (!in_base || base_->type(*in_base).count == 0) ? empty : in_base;
}

std::uint32_t Btf::load(std::size_t at) const { return load32(blob_.data() + at); }

std::string_view Btf::string(std::uint32_t offset) const {
  if (offset < first_string_) return base_->string(offset);
  offset -= first_string_;
  if (offset >= strings_size_) return {};
  const char* text = reinterpret_cast<const char*>(blob_.data()) + strings_start_ + offset;
  return {text, ::strnlen(text, std::min<std::size_t>(strings_size_ - offset, max_name))};
}

BtfType Btf::type(TypeId id) const {
  if (id == 0 || id >= end_id()) return {};
  if (id < first_id_) return base_->type(id);
  const std::uint32_t at = offsets_[id - first_id_];
  const std::uint32_t info = load(at + 4);
  const std::uint32_t word = load(at + 8);
  BtfType type;
  type.id = id;
  type.kind = static_cast<BtfKind>(info >> 24 & 0x7f);
  type.flag = info >> 31 != 0;
  type.count = info & 0xffffff;
  (has_target(type.kind) ? type.target : type.size) = word;
  type.name = string(load(at));
  type.body = at + head_size;
  return type;
}

BtfMember Btf::member_at(const BtfType& type, std::uint32_t index) const {
  const Btf& home = *owner(type.id);
  const std::size_t at = type.body + std::size_t{12} * index;
  const std::uint32_t where = home.load(at + 8);
  return {home.string(home.load(at)), home.load(at + 4), type.flag ? where & 0xffffff : where,
          type.flag ? where >> 24 : 0};
}

BtfEnumerator Btf::enumerator_at(const BtfType& type, std::uint32_t index) const {
  const Btf& home = *owner(type.id);
  const bool wide = type.kind == BtfKind::enumeration64;
  const std::size_t at = type.body + std::size_t{wide ? 12u : 8u} * index;
  const std::uint32_t low = home.load(at + 4);
  const std::string_view name = home.string(home.load(at));
  if (wide) return {name, static_cast<std::int64_t>(std::uint64_t{home.load(at + 8)} << 32 | low)};
  // Before 6.0 kernels flagged no enum as signed, and values were meant as s32.
  const bool is_signed = type.flag || !home.enums_have_sign_;
  return {name, is_signed ? std::int64_t{static_cast<std::int32_t>(low)} : std::int64_t{low}};
}

BtfParameter Btf::parameter_at(const BtfType& type, std::uint32_t index) const {
  const Btf& home = *owner(type.id);
  const std::size_t at = type.body + std::size_t{8} * index;
  return {home.string(home.load(at)), home.load(at + 4)};
}

BtfSectionEntry Btf::section_entry_at(const BtfType& type, std::uint32_t index) const {
  const Btf& home = *owner(type.id);
  const std::size_t at = type.body + std::size_t{12} * index;
  return {home.load(at), home.load(at + 4), home.load(at + 8)};
}

BtfArray Btf::array(const BtfType& type) const {
  const Btf& home = *owner(type.id);
  return {home.load(type.body), home.load(type.body + 8)};
}

BtfInteger Btf::integer(const BtfType& type) const {
  const std::uint32_t word = owner(type.id)->load(type.body);
  const std::uint32_t encoding = word >> 24 & 0xf;
  return {(encoding & 1) != 0, (encoding & 2) != 0, (encoding & 4) != 0, word >> 16 & 0xff,
          word & 0xff};
}

}  // namespace vmsight
