// Any text as the answer to each question of the human monitor.
#include "qemu/monitor_text.h"

#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmsight;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto ranges = parse_flat_view(text)) {
    for (const FlatRange& range : *ranges) VMSIGHT_CHECK(range.size > 0);
  }
  if (const auto registers = parse_registers(text)) {
    for (const VcpuRegisters& vcpu : *registers) VMSIGHT_CHECK(vcpu.cpl <= 3);
  }
  static_cast<void>(parse_gpa2hva(text));
  std::vector<std::byte> words(64);
  static_cast<void>(parse_xp(text, GuestPhys(0x1000000), words));
  return 0;
}
