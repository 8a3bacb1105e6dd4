// Where a kernel function can be patched: the five-byte NOP that the kernel keeps at its beginning
// for its own function tracer.
//
//   function+0   [endbr64 or what sealing made of it, 4 bytes]
//   +0 or +4     0f 1f 44 00 00  or  66 66 66 66 90     idle
//                e8 ........     or  e9 ........        in use by the guest itself
//                3e 3e 3e 0f 08                         in use by a probe (invd)
//
// Whether the kernel agrees is looked up in its own records of such places (struct dyn_ftrace):
// a jump label's NOP at the same place looks the same.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "vmsight/probe.h"
#include "vmsight/reader.h"

namespace vmsight {

struct FtraceSite {
  enum class State {
    idle,    // `bytes` are the NOP
    traced,  // the guest traces the function itself: must not be touched
    probed,  // `bytes` are the trap of a probe
    unrecorded,  // the NOP, but the kernel has no record of it: a jump label's, or of a module that came later
    none,    // no place; `bytes` are what is there instead
    unread,  // the function's code is not mapped, or not in RAM
  };
  static constexpr std::size_t size = 5;
  State state = State::unread;
  GuestVirt address;
  std::array<std::byte, size> bytes{};
};

/// The trap: three redundant prefixes and invd, one instruction.
inline constexpr std::array<std::byte, FtraceSite::size> invd_trap{
    std::byte{0x3e}, std::byte{0x3e}, std::byte{0x3e}, std::byte{0x0f}, std::byte{0x08}};

class FtraceSites {
 public:
  /// Reads where the kernel's records are; modules that come later bring others. A kernel without ftrace has
  /// none: then bytes alone tell.
  static FtraceSites resolve(Kernel& kernel, Reader& reader);

  bool has_records() const { return !pages_.empty(); }
  FtraceSite find(Reader& reader, GuestVirt function) const;
  /// Whether the kernel has a record of this place; nullopt if its records could not be read.
  std::optional<bool> has_record(Reader& reader, GuestVirt place) const;

 private:
  struct Page {
    GuestVirt records;
    std::uint32_t count = 0;
    std::uint64_t first = 0, last = 0;  // addresses, both included
  };
  std::vector<Page> pages_;
  std::uint32_t record_size_ = 0, ip_offset_ = 0;
};

}  // namespace vmsight
