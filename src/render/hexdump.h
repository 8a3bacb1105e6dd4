// Bytes as `hexdump -C` prints them.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "render/output.h"

namespace vmsight {

/// 16 bytes a line behind their address; runs of equal lines become one `*`.
class HexDump {
 public:
  /// `address` is that of the first byte.
  HexDump(Output& out, std::uint64_t address) : out_(out), address_(address) {}
  /// Adds bytes; pieces other than the last must be a multiple of 16 long.
  void add(std::span<const std::byte> bytes);
  /// The last line: the address behind the last byte.
  void finish() { out_.print("{:016x}\n", address_); }

 private:
  static constexpr std::size_t line_bytes = 16;
  void print_line(std::span<const std::byte> bytes);

  Output& out_;
  std::uint64_t address_;
  std::array<std::byte, line_bytes> last_{};
  bool have_last_ = false, folding_ = false;
};

}  // namespace vmsight
