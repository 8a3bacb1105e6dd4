// GDB's remote protocol as text: packets and answers. Pure.
// Format: "GDB Remote Serial Protocol" of GDB's manual; QEMU's side is its gdbstub.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "vmsight/result.h"

namespace vmsight {

/// "$payload#checksum". The payload must be plain text: no '$', '#', '}' or '*'.
std::string gdb_packet(std::string_view payload);

/// Finds packets in a stream of bytes that may come in any pieces.
class GdbPackets {
 public:
  void add(std::string_view bytes) { waiting_.append(bytes); }

  /// The payload of the next whole packet, with escapes and repeats resolved; nullopt if it has
  /// not arrived yet. Acknowledgements and notifications are skipped. bad_data for a wrong
  /// checksum or an endless packet: the stream cannot be trusted any more.
  Result<std::optional<std::string>> next();

 private:
  std::string waiting_;
};

/// The largest packet that the stub takes ("PacketSize=1000" in its answer to qSupported).
std::optional<std::uint64_t> parse_packet_size(std::string_view supported);

/// The answer to "mADDRESS,LENGTH": hexadecimal bytes, exactly as many as asked for. fault for
/// "Enn", bad_data for anything else.
Result<void> parse_memory(std::string_view answer, std::span<std::byte> into);

/// Whether this tells that the guest stopped or ended, which is said unasked too.
bool is_stop_reply(std::string_view packet);

/// "T05thread:p01.02;": why the guest stopped, and which vCPU that is about.
struct GdbStop {
  static constexpr unsigned trap = 5;       // a breakpoint, or the end of a step
  static constexpr unsigned interrupt = 2;  // stopped by us or by somebody's monitor
  unsigned signal = 0;
  std::optional<unsigned> vcpu;  // QEMU's thread N is vCPU N - 1
  bool ended = false;            // there is no guest any more
};
std::optional<GdbStop> parse_stop_reply(std::string_view packet);

}  // namespace vmsight
