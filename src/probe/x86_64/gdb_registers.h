// Registers as QEMU's gdbstub tells and takes them. Pure.
#pragma once

#include <string>
#include <string_view>

#include "vmsight/probe.h"

namespace vmsight {

struct GdbRegisters {
  ProbeRegisters registers;
  std::uint64_t kernel_gs_base = 0;  // what SWAPGS would load
  unsigned cpl = 0;
};
/// The answer to "g". bad_data if it is none of an x86-64 QEMU.
Result<GdbRegisters> parse_gdb_registers(std::string_view answer);

/// The order that sets RIP.
std::string set_rip(std::uint64_t value);

}  // namespace vmsight
