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

Result<BlocksAndMap> derive(const VmInfo& info, const CommandLine& line,
                            const std::vector<HostMapping>& maps) {
  std::vector<MemoryBackend> backends = line.main_memory;
  for (const Dimm& dimm : line.dimms) {
    const auto backend = std::find_if(line.backends.begin(), line.backends.end(),
                                      [&](const auto& b) { return b.id == dimm.backend; });
    if (backend != line.backends.end()) backends.push_back(*backend);
  }
  BlocksAndMap found;
  VMSIGHT_TRY(found.blocks, find_ram_blocks(maps, backends,
                                            [&] { return read_proc_file(info.pid, "smaps"); }));
  VMSIGHT_TRY(found.ram, derive_ram_map(line, found.blocks));
  return found;
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
  HostLayout layout;
  if (!told) {
    if (!derived) return std::move(derived).error();
    layout.monitor_note = told.error().message;
    layout.source = "derived";
    layout.blocks = std::move(derived->blocks);
    layout.ram = std::move(derived->ram);
    return layout;
  }
  layout.disagreement =
      derived ? difference(derived->ram, told->ram) : derived.error().message;
  layout.source = "monitor";
  layout.blocks = std::move(told->blocks);
  layout.ram = std::move(told->ram);
  return layout;
}

}  // namespace vmsight
