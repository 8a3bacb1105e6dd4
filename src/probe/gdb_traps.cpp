#include "probe/gdb_traps.h"

#include <fmt/format.h>

namespace vmsight {

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
