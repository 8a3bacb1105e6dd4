// BTF: the kernel's own description of its types, as the guest's memory holds it.
//
// The blob is untrusted. parse() checks every length, name and reference once; afterwards the
// type graph can still be cyclic, so everything here that follows references is bounded.
// Types are read in place from the blob: a TypeId costs 4 bytes and a name index entry 4 more.
//
// Format: Documentation/bpf/btf.rst of the Linux sources. Split BTF (of modules) continues the
// ids and string offsets of its base.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "vmsight/kernel.h"
#include "vmsight/result.h"

namespace vmsight {

using TypeId = std::uint32_t;  // 0 is void

/// Numbers as in the format.
enum class BtfKind : std::uint8_t {
  void_type = 0,
  integer = 1,
  pointer = 2,
  array = 3,
  structure = 4,
  union_type = 5,
  enumeration = 6,
  forward = 7,
  typedef_name = 8,
  volatile_type = 9,
  const_type = 10,
  restrict_type = 11,
  function = 12,
  function_proto = 13,
  variable = 14,
  data_section = 15,
  floating = 16,
  decl_tag = 17,
  type_tag = 18,
  enumeration64 = 19,
};

/// The head of a type. What follows it depends on the kind: see the accessors of Btf.
struct BtfType {
  TypeId id = 0;
  BtfKind kind = BtfKind::void_type;
  bool flag = false;        // bitfield offsets (struct), union (forward), signed (enum)
  std::uint32_t count = 0;  // members, enumerators, parameters, section entries
  std::uint32_t size = 0;   // bytes: integer, struct, union, enum, float, section
  TypeId target = 0;        // what a pointer, typedef, const, function ... refers to
  std::string_view name;    // "" if anonymous
  std::uint32_t body = 0;   // where the rest lies; for the accessors only
  bool is_composite() const { return kind == BtfKind::structure || kind == BtfKind::union_type; }
  bool is_enum() const { return kind == BtfKind::enumeration || kind == BtfKind::enumeration64; }
};

struct BtfMember {
  std::string_view name;  // "" if anonymous
  TypeId type = 0;
  std::uint32_t bit_offset = 0;  // from the start of the structure
  std::uint32_t bit_size = 0;    // 0 unless a bitfield
};
/// Where a path leads within a structure.
struct BtfPlace {
  TypeId type = 0;
  std::uint64_t bit_offset = 0;  // from the start of the outermost structure
  std::uint32_t bit_size = 0;    // 0 unless a bitfield
};
struct BtfArray {
  TypeId element = 0;
  std::uint32_t count = 0;
};
struct BtfInteger {
  bool is_signed = false, is_char = false, is_bool = false;
  std::uint32_t bit_offset = 0, bits = 0;
};
struct BtfEnumerator {
  std::string_view name;
  std::int64_t value = 0;
};
struct BtfParameter {
  std::string_view name;  // "" and type 0 at the end: "..."
  TypeId type = 0;
};
struct BtfSectionEntry {
  TypeId variable = 0;
  std::uint32_t offset = 0, size = 0;
};

class Btf {
 public:
  /// Takes the blob over. `base` (for a module's split BTF) must outlive the result.
  /// bad_data if the blob contradicts itself, unsupported for a kind or version unknown here.
  static Result<std::unique_ptr<Btf>> parse(std::vector<std::byte> blob, const Btf* base = nullptr);

  /// A member by a path such as "thread_info.cpu" or "mem[1].base"; goes through anonymous
  /// members and typedefs. Member::size is of the whole member and Member::count the number of
  /// its elements: an element has size / count. No path leads through an array without an index:
  /// kernels turn scalars into arrays of structures, and callers test for what is there.
  std::optional<Member> member(std::string_view type, std::string_view path) const;
  std::optional<Member> member(TypeId type, std::string_view path) const;
  /// The same with the member's type.
  std::optional<BtfPlace> place(TypeId type, std::string_view path) const;
  /// Bytes of a struct, union, typedef, integer, enum or float, by name as in find_type.
  std::optional<std::uint64_t> size_of(std::string_view type) const;
  /// nullopt for void, functions, forward declarations, and nonsense (cycles, overflow).
  std::optional<std::uint64_t> size_of(TypeId type) const;
  std::optional<std::int64_t> enumerator(std::string_view name) const;

  /// One past the last id. Ids of the base come first.
  TypeId end_id() const { return first_id_ + static_cast<TypeId>(offsets_.size()); }
  /// The first id that is not the base's; 1 without base.
  TypeId first_id() const { return first_id_; }
  /// void for 0 and for ids that do not exist.
  BtfType type(TypeId id) const;

  /// The first type of that name and kind; a struct or union with members comes before an empty
  /// one (kernels have a few names twice). Looks into the base last.
  std::optional<TypeId> find(std::string_view name, BtfKind kind) const;
  /// By a C type name: "struct x", "union x", "enum x", or a bare name: the first struct or
  /// union, else typedef, enum, integer, float.
  std::optional<TypeId> find_type(std::string_view name) const;

  /// Strips typedef, const, volatile, restrict and type tags; void if that does not end.
  BtfType resolve(TypeId id) const;

  /// Details; `index` below type.count. The type must have come from this object.
  BtfMember member_at(const BtfType& type, std::uint32_t index) const;
  BtfEnumerator enumerator_at(const BtfType& type, std::uint32_t index) const;
  BtfParameter parameter_at(const BtfType& type, std::uint32_t index) const;
  BtfSectionEntry section_entry_at(const BtfType& type, std::uint32_t index) const;
  BtfArray array(const BtfType& type) const;
  BtfInteger integer(const BtfType& type) const;

  std::size_t blob_size() const { return blob_.size(); }

 private:
  Btf() = default;
  Result<void> read_header();
  Result<void> read_types();
  void index_names();

  std::uint32_t load(std::size_t at) const;
  std::string_view string(std::uint32_t offset) const;
  const Btf* owner(TypeId id) const { return id < first_id_ ? base_ : this; }

  std::vector<std::byte> blob_;
  const Btf* base_ = nullptr;
  TypeId first_id_ = 1;
  std::uint32_t types_start_ = 0, types_end_ = 0;       // within blob_
  std::uint32_t strings_start_ = 0, strings_size_ = 0;  // within blob_
  std::uint32_t first_string_ = 0;                      // string offsets below are the base's
  bool enums_have_sign_ = false;                        // the flag of enums means something
  std::vector<std::uint32_t> offsets_;                  // of each type, within blob_
  // Ids by hash of the name: bucket b holds ids_by_name_[bucket_starts_[b] .. [b + 1]).
  std::vector<std::uint32_t> bucket_starts_;
  std::vector<TypeId> ids_by_name_;
};

}  // namespace vmsight
