// A function's arguments and result by name and type: from its prototype in the guest's BTF, by the
// x86-64 calling convention.
//
//   plan     once a site: which registers and pointers have to be fetched at a hit
//   decode   once a hit: what was fetched, as values with names
//
// System call wrappers (__x64_sys_openat) get a struct pt_regs: their real arguments are decoded
// from it, by the kernel's own table of its system calls where it has one.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernel/btf.h"
#include "probe/filter.h"
#include "probe/flags.h"
#include "probe/user_values.h"
#include "vmsight/reader.h"

namespace vmsight {

inline constexpr std::uint16_t max_argument_text = 256;

class ProbeExpression;

struct ArgumentPlan {
  enum class Shape : std::uint8_t {
    number,
    octal,
    hexadecimal,
    boolean,
    enumerator,
    pointer,
    text,    // a char pointer: `value` has its bytes too
    opaque,  // cannot be decoded: `problem` says why
  };
  std::string name;  // "filename"; "arg3" if it has none
  std::string type;  // as C writes it; "" if it is not known
  Shape shape = Shape::hexadecimal;
  TypeId type_id = 0;
  std::uint8_t bits = 64;
  bool is_signed = false;
  std::size_t value = 0;             // index of the fetch
  std::optional<std::size_t> label;  // of a fetch that names what a pointer points to
  TypeId pointee = 0;                // of a pointer to a structure,
  std::string structure;             // which is called so; "" if it has no name, or no members
  std::string problem;
  FlagKind flags = FlagKind::none;  // what its numbers are called; of system calls see FunctionPlan
  std::shared_ptr<const ProbeExpression>
      expression{};  // of a field that is computed: `value` is none
  // Of system calls:
  const UserRule* user = nullptr;    // what it points to, by
  std::vector<std::size_t> pointed;  // these fetches; of what the call fills, fetches_return
  std::optional<std::size_t>
      again;  // of fetches_return: a text whose page the call itself brought in
};

struct FunctionPlan {
  std::string name;  // "do_sys_openat2"; of a system call "openat"
  std::vector<ArgumentPlan> arguments;
  std::optional<ArgumentPlan> result;
  std::vector<ProbeFetch> fetches, fetches_return;
  const Btf* btf = nullptr;                 // what the types are of; nullptr if none are known
  std::optional<std::int64_t> system_call;  // its number
  std::string_view abi;                  // of a system call: "i386", "x32"; "" of 64-bit programs
  std::optional<std::size_t> number;     // the fetch of its number, where the function has none
  std::span<const FlagRule> flag_rules;  // of a system call's arguments
  std::string problem;                   // why arguments are not known by name, "" if they are
};

/// Never fails: without types, six registers as numbers; of user functions as texts those that `texts` has
/// a bit for.
FunctionPlan plan_function(Kernel& kernel, Reader& reader, const ProbeSite& site,
                           std::uint8_t texts = 0);

/// What filters may name: the arguments, arg0 ... (as numbers), and for returns retval, duration.
FilterNames filter_names(const FunctionPlan& plan, bool at_return);

/// A value at a hit.
struct ProbeValue {
  const ArgumentPlan* plan = nullptr;
  bool known = false;               // it could be fetched
  bool has_number = false;          // its number could, though what it points to may be unknown
  std::uint64_t number = 0;         // extended to 64 bits by its type
  std::optional<std::string> text;  // raw bytes of a string, or the label of a pointer
  bool cut = false;                 // the text goes on
  std::string names;                // of the number: an enumerator, flags; "" if it has none
  bool unused = false;              // the system call does not look at it, as the others are
};
std::vector<ProbeValue> decode_arguments(const FunctionPlan& plan, const Hit& hit);
/// nullopt for functions without result, or if the hit is no return.
std::optional<ProbeValue> decode_result(const FunctionPlan& plan, const Hit& hit);

/// "-100", "0x7ffe...", "\"/etc/passwd\"", "LOOKUP_OPEN"; ASCII only. Of results also "-2 (ENOENT)".
std::string to_text(const ProbeValue& value, bool is_result = false);
/// "-1" of a number without a known type that is a small negative one as an int or a long; else "".
std::string small_negative(const ProbeValue& value);
/// The error that a result is: "ENOENT", also the kernel's own "ERESTARTSYS"; "" if it is none.
std::string error_name(std::uint64_t result);

}  // namespace vmsight
