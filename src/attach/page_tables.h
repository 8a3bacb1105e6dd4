// The page tables that a VM's vCPUs use.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "vmsight/vm.h"

namespace vmsight {

/// CR3 of each.
inline std::vector<std::uint64_t> page_tables_of(std::span<const VcpuRegisters> vcpus) {
  std::vector<std::uint64_t> values;
  for (const VcpuRegisters& vcpu : vcpus) values.push_back(vcpu.cr3);
  return values;
}

/// By the monitor; none if it cannot tell.
inline std::vector<std::uint64_t> page_tables_of(Vm& vm) {
  const auto registers = vm.registers();
  return registers ? page_tables_of(*registers) : std::vector<std::uint64_t>();
}

}  // namespace vmsight
