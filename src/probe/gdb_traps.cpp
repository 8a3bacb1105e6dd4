#include "probe/gdb_traps.h"

#include <fmt/format.h>
#include <cstring>

namespace vmsight {

std::size_t nop_length(std::span<const std::byte> code, bool endbr) {
  struct Nop {
    std::size_t size;
    unsigned char bytes[9];
    unsigned char compared;  // bytes; the rest are operands that do not matter
  };
  // Intel SDM volume 2B, "NOP"; the second of five bytes is what Linux 5.10 used.
  static constexpr Nop nops[] = {
      {1, {0x90}, 1},
      {2, {0x66, 0x90}, 2},
      {3, {0x0f, 0x1f, 0x00}, 3},
      {4, {0x0f, 0x1f, 0x40}, 3},
      {4, {0x66, 0x0f, 0x1f, 0x00}, 4},
      {5, {0x0f, 0x1f, 0x44, 0x00}, 4},
      {5, {0x66, 0x66, 0x66, 0x66, 0x90}, 5},
      {6, {0x66, 0x0f, 0x1f, 0x44, 0x00}, 5},
      {7, {0x0f, 0x1f, 0x80}, 3},
  };
  static constexpr unsigned char endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
  if (endbr && code.size() >= 4 && std::memcmp(code.data(), endbr64, 4) == 0) return 4;
  for (const Nop& nop : nops) {
    if (code.size() >= nop.size && std::memcmp(code.data(), nop.bytes, nop.compared) == 0) {
      return nop.size;
    }
  }
  return 0;
}

GdbTrap* GdbTraps::find(std::uint64_t address) {
  const auto at = traps_.find(address);
  return at == traps_.end() ? nullptr : &at->second;
}

std::string GdbTraps::insert_order(std::uint64_t address) const {
  return fmt::format("Z{},{:x},1", kind_ == Kind::hardware ? 1 : 0, address);
}

std::string GdbTraps::remove_order(std::uint64_t address) const {
  return fmt::format("z{},{:x},1", kind_ == Kind::hardware ? 1 : 0, address);
}

void GdbTraps::refused(const std::string& order) {
  for (auto& [address, trap] : traps_) {
    if (insert_order(address) == order) trap.inserted = false;
  }
}

std::vector<std::string> GdbTraps::catch_up() {
  std::vector<std::string> orders;
  for (auto& [address, trap] : traps_) {
    // Removals first: a CPU has few breakpoints of its own.
    if (!trap.is_needed() && trap.inserted) orders.push_back(remove_order(address));
  }
  std::erase_if(traps_, [](const auto& entry) { return !entry.second.is_needed(); });
  for (auto& [address, trap] : traps_) {
    if (!std::exchange(trap.inserted, true)) orders.push_back(insert_order(address));
  }
  return orders;
}

}  // namespace vmsight
