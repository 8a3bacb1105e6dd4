// live-map: the files behind shared guest RAM, mapped read-only.
#include "view/mapped_memory.h"
#include "view/ram_files.h"
#include "vmsight/view.h"

namespace vmsight {

Result<std::unique_ptr<GuestMemory>> open_live_map(const Vm& vm) {
  VMSIGHT_TRY_VOID(vm.check_alive());
  std::optional<Error> missing;
  MappedMemory::Parts parts{.technique = "live-map", .live = true, .ram = vm.ram()};
  VMSIGHT_TRY(parts.files, open_ram_files(vm, &missing));
  if (missing) return *std::move(missing);
  for (const FileRun& run : parts.files.runs()) {
    VMSIGHT_TRY(GuardedMapping mapping, GuardedMapping::map(run.fd, run.offset, run.size));
    parts.ranges.push_back({run.start, run.size, mapping.bytes().data()});
    parts.mappings.push_back(std::move(mapping));
  }
  parts.alive = [&vm] { return vm.check_alive(); };
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> memory, MappedMemory::make(std::move(parts)));
  return memory;
}

}  // namespace vmsight
