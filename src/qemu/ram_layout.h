// Which guest-physical addresses QEMU's RAM blocks appear at.
//
//   pc, 5 GiB:   0        3 GiB   4 GiB      6 GiB
//                [ below ]  hole  [ above ][ DIMMs from the next GiB ]
//   block        0 ..... 3 GiB    3 .. 5 GiB
//
// The rules are those of QEMU's hw/i386/pc_piix.c, pc_q35.c, pc.c and microvm.c; each is replayed
// in tests/replay against what `info mtree -f` of the same VM said.
#pragma once

#include <span>

#include "host/command_line.h"
#include "vmsight/vm.h"

namespace vmsight {

/// The layout that QEMU gives this machine. `blocks` are those of line.main_memory, then those of
/// line.dimms, then what was plugged in later, in order. unsupported, with the reason, for a machine whose layout we do
/// not know; bad_data if the sizes contradict each other.
Result<RamMap> derive_ram_map(const CommandLine& line, std::span<const RamBlock> blocks);

/// How much of `ram_bytes` lies below 4 GiB. unsupported for an unknown machine type.
Result<std::uint64_t> bytes_below_4g(const CommandLine& line, std::uint64_t ram_bytes);

/// What differs between two maps, for a person; "" if nothing does. The first MiB is left out
/// above 640 KiB: the guest's firmware decides what is RAM there. So is memory of blocks that
/// `derived` knows nothing of: it was plugged in later.
std::string difference(const RamMap& derived, const RamMap& told);

}  // namespace vmsight
