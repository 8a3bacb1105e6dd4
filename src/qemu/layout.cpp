#include "qemu/layout.h"

#include <algorithm>

#include "host/process.h"
#include "qemu/monitor_questions.h"
#include "qemu/monitor_session.h"
#include "qemu/ram_layout.h"

namespace vmsight {
namespace {

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

Result<HostLayout> without_monitor(const CommandLine& line, const ReadText& read_smaps,
                                   BlocksAndMap derived, std::string monitor_note) {
  HostLayout layout;
  VMSIGHT_TRY(const bool plugged, add_plugged(line, read_smaps, derived));
  if (plugged) layout.ram_note = "memory was plugged in; its place follows from QEMU's habits only";
  layout.monitor_note = std::move(monitor_note);
  layout.source = "derived";
  layout.blocks = std::move(derived.blocks);
  layout.ram = std::move(derived.ram);
  return layout;
}

Result<BlocksAndMap> ask(const VmInfo& info, const CommandLine& line,
                         const std::vector<HostMapping>& maps) {
  VMSIGHT_TRY(const auto session, MonitorSession::of(info));
  VMSIGHT_TRY(MonitorLayout layout,
              session->with_client([&](QmpClient& monitor) { return ask_layout(monitor, line); }));
  BlocksAndMap found;
  for (RamBlock& block : layout.blocks) {
    VMSIGHT_TRY_VOID(complete_block(maps, block));
    found.blocks.push_back(std::move(block));
  }
  VMSIGHT_TRY(found.ram, RamMap::from(std::move(layout.ranges)));
  return found;
}

}  // namespace

Result<BlocksAndMap> derive_layout(const CommandLine& line, std::span<const HostMapping> maps,
                                   const ReadText& read_smaps) {
  BlocksAndMap found;
  VMSIGHT_TRY(found.blocks, find_ram_blocks(maps, sort_backends(line).ram, read_smaps));
  VMSIGHT_TRY(found.ram, derive_ram_map(line, found.blocks));
  return found;
}

Result<bool> add_plugged(const CommandLine& line, const ReadText& read_smaps,
                         BlocksAndMap& layout) {
  if (line.maximum_memory_bytes == line.memory_bytes) return false;
  VMSIGHT_TRY(const std::string smaps, read_smaps());
  VMSIGHT_TRY(auto plugged, find_plugged_blocks(smaps, layout.blocks, sort_backends(line).others));
  std::uint64_t total = 0;
  for (const RamBlock& block : plugged) total += block.size;
  if (plugged.empty() || total > line.maximum_memory_bytes - line.memory_bytes) return false;
  layout.blocks.insert(layout.blocks.end(), plugged.begin(), plugged.end());
  VMSIGHT_TRY(layout.ram, derive_ram_map(line, layout.blocks));
  return true;
}

Result<HostLayout> find_layout(const VmInfo& info, const CommandLine& line) {
  VMSIGHT_TRY(const std::string text, read_proc_file(info.pid, "maps"));
  VMSIGHT_TRY(const auto maps, parse_maps(text));
  const ReadText read_smaps = [&] { return read_proc_file(info.pid, "smaps"); };
  auto derived = derive_layout(line, maps, read_smaps);
  auto told = ask(info, line, maps);
  if (!told) {
    if (!derived) return std::move(derived).error();
    return without_monitor(line, read_smaps, *std::move(derived), told.error().message);
  }
  HostLayout layout;
  layout.ram_note = derived ? difference(derived->ram, told->ram) : derived.error().message;
  layout.source = "monitor";
  layout.blocks = std::move(told->blocks);
  layout.ram = std::move(told->ram);
  return layout;
}

}  // namespace vmsight
