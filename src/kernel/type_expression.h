// C expressions over guest memory: "init_task.parent->comm", "*(struct net *)0xffff...".
//
//   unary   := '*' unary | '&' unary | '(' type ')' unary | postfix
//   postfix := primary { '.' name | '->' name | '[' number ']' }
//   primary := symbol | number | '(' unary ')'
//
// Names of a module's symbols and types may say so: "virtio_net:virtnet_driver",
// "(struct virtio_net:virtnet_info *)0xffff...".
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "kernel/btf.h"
#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

/// What an expression denotes: an object in guest memory, or a pointer or number by itself.
struct Operand {
  TypeId type = 0;
  unsigned pointers = 0;                       // stars that "&" or a cast added to the type
  std::optional<GuestVirt> address;            // of an object
  std::uint32_t bit_offset = 0, bit_size = 0;  // of a bitfield at `address`
  std::uint64_t value = 0;                     // if it has no address
  bool is_number = false;                      // a bare number
  std::uint32_t count = 0;                     // elements, for arrays that BTF does not describe
};

/// The types an expression is about: the kernel's, or those of the module it names (which contain
/// the kernel's). usage if it names two; not_found if the module is not there.
Result<const Btf*> types_of_expression(Kernel& kernel, std::string_view text);
/// "struct virtio_net:virtnet_info" without the module.
std::string without_module(std::string_view type);

/// Follows pointers by reading them. `btf` is types_of_expression(). usage, not_found, or fault.
Result<Operand> evaluate_expression(Kernel& kernel, const Btf& btf, Reader& reader,
                                    std::string_view text, std::optional<std::size_t> cpu);

}  // namespace vmsight
