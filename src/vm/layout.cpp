#include "vm/layout.h"

#include <algorithm>

#include "vm/host_maps.h"
#include "vm/monitor.h"
#include "vm/process.h"
#include "vm/ram_layout.h"

namespace vmsight {
namespace {

struct BlocksAndMap {
  std::vector<RamBlock> blocks;
  RamMap ram;
};

/// The backends of RAM on the command line, in the order derive_ram_map wants them, and the rest.
struct Backends {
  std::vector<MemoryBackend> ram, others;
};

Backends sort_backends(const CommandLine& line) {
  Backends backends{line.main_memory, line.backends};
  for (const Dimm& dimm : line.dimms) {
    const auto backend = std::find_if(backends.others.begin(), backends.others.end(),
                                      [&](const auto& b) { return b.id == dimm.backend; });
    if (backend == backends.others.end()) continue;
    backends.ram.push_back(*backend);
    backends.others.erase(backend);
  }
  return backends;
}

Result<BlocksAndMap> derive(const VmInfo& info, const CommandLine& line,
                            const std::vector<HostMapping>& maps) {
  BlocksAndMap found;
  VMSIGHT_TRY(found.blocks, find_ram_blocks(maps, sort_backends(line).ram,
                                            [&] { return read_proc_file(info.pid, "smaps"); }));
  VMSIGHT_TRY(found.ram, derive_ram_map(line, found.blocks));
  return found;
}

/// Adds what was plugged in since the start, where there is room for it. True if there was any.
Result<bool> add_plugged(const VmInfo& info, const CommandLine& line, BlocksAndMap& found) {
  if (line.maximum_memory_bytes == line.memory_bytes) return false;
  VMSIGHT_TRY(const std::string smaps, read_proc_file(info.pid, "smaps"));
  VMSIGHT_TRY(auto plugged, find_plugged_blocks(smaps, found.blocks, sort_backends(line).others));
  std::uint64_t total = 0;
  for (const RamBlock& block : plugged) total += block.size;
  if (plugged.empty() || total > line.maximum_memory_bytes - line.memory_bytes) return false;
  found.blocks.insert(found.blocks.end(), plugged.begin(), plugged.end());
  VMSIGHT_TRY(found.ram, derive_ram_map(line, found.blocks));
  return true;
}

Result<HostLayout> without_monitor(const VmInfo& info, const CommandLine& line,
                                   BlocksAndMap derived, std::string monitor_note) {
  HostLayout layout;
  VMSIGHT_TRY(const bool plugged, add_plugged(info, line, derived));
  if (plugged) layout.ram_note = "memory was plugged in; its place follows from QEMU's habits only";
  layout.monitor_note = std::move(monitor_note);
  layout.source = "derived";
  layout.blocks = std::move(derived.blocks);
  layout.ram = std::move(derived.ram);
  return layout;
}

Result<BlocksAndMap> ask(const VmInfo& info, const CommandLine& line,
                         const std::vector<HostMapping>& maps) {
  VMSIGHT_TRY(QmpClient monitor, connect_monitor(info));
  VMSIGHT_TRY(MonitorLayout layout, ask_layout(monitor, line));
  BlocksAndMap found;
  for (RamBlock& block : layout.blocks) {
    VMSIGHT_TRY_VOID(complete_block(maps, block));
    found.blocks.push_back(std::move(block));
  }
  VMSIGHT_TRY(found.ram, RamMap::from(std::move(layout.ranges)));
  return found;
}

}  // namespace

Result<HostLayout> find_layout(const VmInfo& info, const CommandLine& line) {
  VMSIGHT_TRY(const std::string text, read_proc_file(info.pid, "maps"));
  VMSIGHT_TRY(const auto maps, parse_maps(text));
  auto derived = derive(info, line, maps);
  auto told = ask(info, line, maps);
  if (!told) {
    if (!derived) return std::move(derived).error();
    return without_monitor(info, line, *std::move(derived), told.error().message);
  }
  HostLayout layout;
  layout.ram_note = derived ? difference(derived->ram, told->ram) : derived.error().message;
  layout.source = "monitor";
  layout.blocks = std::move(told->blocks);
  layout.ram = std::move(told->ram);
  return layout;
}

}  // namespace vmsight
