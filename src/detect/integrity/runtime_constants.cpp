#include "detect/integrity/runtime_constants.h"

#include <algorithm>

#include "kernel/architecture.h"
#include "kernel/bytes.h"

namespace vmsight {
namespace {

constexpr std::size_t opcode_size = 2, constant_size = 8;
constexpr std::size_t max_constants = 64;                  // kinds; Linux 7.2 has about ten
constexpr std::uint64_t kernel_half = 0xff00000000000000;  // of any count of page table levels

/// REX.W, and B for the upper registers; then the opcode with the register in its lowest bits.
bool loads_constant(std::span<const std::byte> code) {
  return (code[0] == std::byte{0x48} || code[0] == std::byte{0x49}) &&
         (code[1] & std::byte{0xf8}) == std::byte{0xb8};
}

}  // namespace

std::optional<std::size_t> RuntimeConstants::end_of(std::span<const std::byte> before,
                                                    std::span<const std::byte> now,
                                                    std::size_t at) {
  for (std::size_t into = 0; into < constant_size; ++into) {
    if (at < into + opcode_size) break;
    const std::size_t start = at - into;
    if (start + constant_size > std::min(before.size(), now.size())) continue;
    const std::size_t opcode = start - opcode_size;
    if (!loads_constant(before.subspan(opcode)) || !loads_constant(now.subspan(opcode))) continue;
    const auto was = load_le<std::uint64_t>(before, start), is = load_le<std::uint64_t>(now, start);
    if (was < kernel_half || is < kernel_half || !is_data(is)) continue;
    if (changed_.size() >= max_constants && !changed_.contains(was)) continue;
    if (changed_.try_emplace(was, is).first->second == is) return start + constant_size;
  }
  return std::nullopt;
}

bool RuntimeConstants::is_data(std::uint64_t address) {
  const auto found = kernel_.space().walk(reader_.memory(), GuestVirt(address));
  return found && !found->executable && !found->user;
}

}  // namespace vmsight
