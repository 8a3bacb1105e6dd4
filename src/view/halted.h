// halt-map, halt-read and halt-interface: any live access, composed with any halter.
#pragma once

#include "view/paused_memory.h"
#include "vmsight/halt.h"
#include "vmsight/vm.h"

namespace vmsight {

/// The technique is called as the access is: "live-map" halted by ptrace is "halt-map:ptrace", and
/// "live-interface:xp", which goes with one halter only, "halt-interface:xp".
template <auto open_access, auto open_halter>
Result<std::unique_ptr<GuestMemory>> open_halted(const Vm& vm, std::chrono::milliseconds max_halt) {
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> access, open_access(vm));
  VMSIGHT_TRY(std::unique_ptr<Halter> halter, open_halter(vm, max_halt));
  constexpr std::string_view live = "live-";
  VMSIGHT_CHECK(access->technique().starts_with(live));
  std::string technique = fmt::format("halt-{}", access->technique().substr(live.size()));
  if (technique.find(':') == std::string::npos) technique += fmt::format(":{}", halter->name());
  return std::unique_ptr<GuestMemory>(
      std::make_unique<PausedMemory>(std::move(technique), std::move(access), std::move(halter)));
}

}  // namespace vmsight
