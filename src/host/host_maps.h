// Where QEMU keeps guest RAM: RAM blocks found among the mappings of its process.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host/command_line.h"
#include "vmsight/vm.h"

namespace vmsight {

/// A line of /proc/PID/maps, or an entry of smaps. See proc(5).
struct HostMapping {
  HostVirt start, end;
  bool readable = false, writable = false, executable = false, shared = false;
  std::uint64_t offset = 0, device = 0, inode = 0;
  std::string path;
  bool dont_fork = false;  // smaps VmFlags "dc": QEMU keeps guest RAM and ROM out of children
  std::uint64_t size() const { return end - start; }
};

/// Parses maps or smaps. bad_data if a line fits neither.
Result<std::vector<HostMapping>> parse_maps(std::string_view text);

/// Finds the mapping of each backend: a writable one of its size, kind and path; equal ones are
/// told apart by order of creation (inodes rise, anonymous addresses fall). `read_smaps` gives
/// the text of smaps and is called only if maps alone are not enough: smaps costs milliseconds.
/// not_found or ambiguous, naming the backend, otherwise.
Result<std::vector<RamBlock>> find_ram_blocks(
    std::span<const HostMapping> maps, std::span<const MemoryBackend> backends,
    const std::function<Result<std::string>()>& read_smaps);

/// Memory that was plugged in after the start, so that no argument tells of it: other mappings of
/// a DIMM's size that QEMU keeps out of children, named "plugged0", "plugged1" ... in the likely
/// order of creation. `smaps` is the text of smaps, `known` are the blocks found before, `unplugged` the
/// backends that are not the guest's RAM (shared with other VMs, say).
Result<std::vector<RamBlock>> find_plugged_blocks(std::string_view smaps,
                                                  std::span<const RamBlock> known,
                                                  std::span<const MemoryBackend> unplugged);

/// Fills in how a block of known place and size is backed. bad_data if no writable mapping of the
/// process covers it.
Result<void> complete_block(std::span<const HostMapping> maps, RamBlock& block);

}  // namespace vmsight
