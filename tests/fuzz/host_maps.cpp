// Any text of maps or smaps, searched for the backends of two usual VMs.
#include <string_view>

#include "host/host_maps.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmsight;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto maps = parse_maps(text);
  if (!maps) return 0;
  for (const HostMapping& mapping : *maps) VMSIGHT_CHECK(mapping.start <= mapping.end);
  const auto smaps = [&] { return Result<std::string>(text); };
  const MemoryBackend anonymous{.id = "a", .size = 512u << 20};
  const MemoryBackend memfd{"m", BackendKind::memfd, 256u << 20, true};
  const std::vector<std::vector<MemoryBackend>> vms = {{anonymous}, {memfd, memfd}};
  for (const auto& backends : vms) {
    auto blocks = find_ram_blocks(*maps, backends, smaps);
    if (!blocks) continue;
    for (RamBlock& block : *blocks) static_cast<void>(complete_block(*maps, block));
    static_cast<void>(find_plugged_blocks(text, *blocks, {}));
  }
  return 0;
}
