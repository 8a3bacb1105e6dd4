// Text that the QEMU monitor prints for people. Pure parsers; fixtures of the QEMU versions seen
// are in tests/replay/data/vm.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/vm.h"

namespace vmsight {

/// A run of `info mtree -f` that is backed by memory: RAM, ROM or a device's.
struct FlatRange {
  GuestPhys start;
  std::uint64_t size = 0;
  std::string name;          // of the memory region: "pc.ram", a backend's id, "vga.vram"
  std::uint64_t offset = 0;  // in that region
};

/// The ranges of address space "memory" in the output of `info mtree -f`. bad_data if it has no
/// such view or a line of it cannot be understood.
Result<std::vector<FlatRange>> parse_flat_view(std::string_view text);

/// The address in "Host virtual address for 0x0 (pc.ram) is 0x7f...", the answer to gpa2hva.
Result<HostVirt> parse_gpa2hva(std::string_view text);

/// The answer to `xp /Ngx ADDRESS`: lines of "0000000001000000: 0x0123456789abcdef 0x...". `into`
/// is filled with exactly the words asked for; its size is a multiple of 8.
Result<void> parse_xp(std::string_view text, GuestPhys from, std::span<std::byte> into);

/// The answer to `info registers -a`, of vCPUs in any mode.
Result<std::vector<VcpuRegisters>> parse_registers(std::string_view text);

}  // namespace vmsight
