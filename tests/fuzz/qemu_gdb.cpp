// Any bytes from a gdbstub, in two pieces.
#include <string_view>
#include <vector>

#include "qemu/gdb_text.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmsight;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  GdbPackets packets;
  for (const std::string_view piece : {text.substr(0, size / 2), text.substr(size / 2)}) {
    packets.add(piece);
    while (true) {
      const auto packet = packets.next();
      if (!packet) return 0;
      if (!*packet) break;
      std::vector<std::byte> bytes(8);
      static_cast<void>(parse_memory(**packet, bytes));
      static_cast<void>(parse_packet_size(**packet));
      static_cast<void>(is_stop_reply(**packet));
    }
  }
  return 0;
}
