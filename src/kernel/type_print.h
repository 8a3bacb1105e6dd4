// Types as C would define them, and live values of guest memory by their type.
//
//   print_type    `type VM task_struct`   the definition, with offsets and sizes
//   evaluate      `print VM EXPRESSION`   an expression to a tree of values
//   to_text, to_json                      the same values in both forms
//
// Both the types (BTF) and the values come from the guest: depth, number of nodes, string
// lengths and array elements are bounded, and what is cut off is shown as "...".
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/btf.h"
#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

/// The C definition of a struct, union, enum, typedef, integer, or the prototype of a function;
/// structures as pahole shows them (offset and size in bytes, holes). `name` is as for
/// Btf::find_type ("task_struct", "struct page", "pid_t") or a kernel function ("vfs_read").
/// Control bytes in names are escaped. not_found if there is no such type.
Result<std::string> print_type(const Btf& btf, std::string_view name);
/// {schema, kind, name, size, members: [{name, type, offset, size, bit_offset, bit_size, members}]},
/// {.., enumerators: [{name, value}]}, {.., returns, parameters: [{name, type}]}; null or absent
/// where it makes no sense.
Result<nlohmann::ordered_json> type_to_json(const Btf& btf, std::string_view name);

/// A type as it is written in front of a name: "struct list_head *", "char [16]".
std::string type_name(const Btf& btf, TypeId id);
/// A whole declaration: type_name around `name` ("char comm[16]", "int (*read)(int fd)").
std::string declaration(const Btf& btf, TypeId id, std::string_view name);

struct PrintRequest {
  /// A C expression: "init_task.comm", "init_task.parent->pid", "*init_task.cred",
  /// "init_net.ns.inum", "((struct task_struct *)0xffff888003a40000)->comm", "&init_task.tasks".
  /// With `address`, a type: "struct task_struct". Of a module: "virtio_net:virtnet_driver".
  std::string expression;
  std::optional<GuestVirt> address;
  std::optional<std::size_t> cpu;  // whose copy, for per-CPU variables
  unsigned depth = 3;              // structures inside structures; anonymous ones do not count
  unsigned max_elements = 64;      // of an array, counted after equal neighbours are folded
};

/// A value read from the guest: a leaf with `text`, or a structure or array with children.
struct TypedValue {
  enum class Kind {
    signed_number,
    unsigned_number,
    wide_number,  // of 128 bits: only as text
    boolean,
    enumerator,
    pointer,
    string,
    structure,
    array,
    omitted,     // too deep, too long: "..."
    unreadable,  // not mapped, or a type without a value; `text` says why
  };
  Kind kind = Kind::omitted;
  std::string name;                   // of the member; "" for elements and anonymous members
  std::string text;                   // raw bytes, for strings; else what to print
  std::uint64_t number = 0;           // two's complement; of numbers, enumerators, pointers
  std::uint32_t first = 0, last = 0;  // elements of an array that have this value
  std::vector<TypedValue> children;
};

struct Printed {
  std::string type;                  // "struct task_struct"
  std::optional<GuestVirt> address;  // nullopt for values without one (casts, "&x")
  TypedValue value;
};

/// usage (bad expression), not_found (symbol, member, type), fault (a pointer on the way).
/// Reads through `reader`; faults inside the value become `unreadable`, and the reader's sticky
/// fault is clear afterwards.
Result<Printed> evaluate(Kernel& kernel, Reader& reader, const PrintRequest& request);
std::string to_text(const Printed& printed);
nlohmann::ordered_json to_json(const Printed& printed);

/// The type of a well-known global variable ("init_task" -> "struct task_struct"): BTF describes
/// per-CPU variables only.
struct KnownGlobal {
  std::string_view symbol, type;
  bool pointer = false;  // the variable is a pointer to `type`
  bool per_cpu = false;
  std::uint32_t count = 0;  // elements, if an array
};
const KnownGlobal* find_known_global(std::string_view symbol);

}  // namespace vmsight
