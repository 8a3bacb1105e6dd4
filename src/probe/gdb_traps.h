// The breakpoints that we have in a gdbstub, and how to get past one.
//
//   entry      for as long as a probe is armed
//   return     while calls are under way that come back there
//
// An instruction that does nothing is skipped by setting RIP behind it, which spares removing the
// breakpoint, stepping, and inserting it again: two more stops of the guest. Nearly all functions
// of a kernel begin with such a one.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

#include "vmsight/probe.h"

namespace vmsight {

struct GdbTrap {
  static constexpr std::size_t code_size = 16;
  std::vector<ProbeId> entries;  // probes armed here
  unsigned returns = 0;          // calls under way that return here
  bool inserted = false;
  std::size_t nop = 0;  // bytes of the instruction, if it does nothing; else 0
  std::array<std::byte, code_size> code{};
  bool is_needed() const { return returns != 0 || !entries.empty(); }
};

class GdbTraps {
 public:
  enum class Kind { software, hardware };
  explicit GdbTraps(Kind kind) : kind_(kind) {}

  GdbTrap& at(std::uint64_t address) { return traps_[address]; }
  GdbTrap* find(std::uint64_t address);
  std::size_t size() const { return traps_.size(); }
  auto begin() { return traps_.begin(); }
  auto end() { return traps_.end(); }

  std::string insert_order(std::uint64_t address) const;
  std::string remove_order(std::uint64_t address) const;
  /// Orders that bring the stub in line with what is needed; what they change counts as done.
  /// Traps that are not needed are forgotten.
  std::vector<std::string> catch_up();
  /// The stub did not insert this one; it is asked again with the next orders.
  void refused(const std::string& insert_order);

 private:
  Kind kind_;
  std::unordered_map<std::uint64_t, GdbTrap> traps_;
};

}  // namespace vmsight
