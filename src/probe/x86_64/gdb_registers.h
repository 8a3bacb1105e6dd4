// Registers as QEMU's gdbstub tells and takes them. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

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
/// Those that have a function return `result` at once: the vCPU stands at its first instruction, with this stack
/// pointer, and was called from before `back`, which is what lies there.
std::vector<std::string> return_at_once(std::uint64_t result, std::uint64_t stack,
                                        std::uint64_t back);

}  // namespace vmsight
