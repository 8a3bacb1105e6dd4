#include "render/hexdump.h"

#include <algorithm>

namespace vmsight {

void HexDump::add(std::span<const std::byte> bytes) {
  while (!bytes.empty() && !out_.failed()) {
    const auto line = bytes.first(std::min(line_bytes, bytes.size()));
    const bool whole = line.size() == line_bytes;
    const bool same = have_last_ && whole && std::equal(line.begin(), line.end(), last_.begin());
    if (!same) {
      print_line(line);
    } else if (!folding_) {
      out_.write("*\n");
    }
    folding_ = same;
    have_last_ = whole;
    std::copy(line.begin(), line.end(), last_.begin());
    address_ += line.size();
    bytes = bytes.subspan(line.size());
  }
}

void HexDump::print_line(std::span<const std::byte> bytes) {
  out_.print("{:016x} ", address_);
  for (std::size_t i = 0; i < line_bytes; ++i) {
    if (i % 8 == 0) out_.write(" ");
    if (i < bytes.size())
      out_.print("{:02x} ", std::to_integer<unsigned>(bytes[i]));
    else
      out_.write("   ");
  }
  std::string text;
  for (std::byte byte : bytes) {
    const char c = static_cast<char>(byte);
    text += c >= 0x20 && c < 0x7f ? c : '.';
  }
  out_.print(" |{}|\n", text);
}

}  // namespace vmsight
