// The head of an ELF core: headers and notes, and where in the file RAM lies.
#pragma once

#include <cstdint>
#include <string>

#include "render/memory_image.h"

namespace vmsight {

struct CoreHeader {
  std::string bytes;             // everything before the RAM
  std::uint64_t ram_offset = 0;  // where the first RAM range begins
  std::uint64_t file_size = 0;

  /// Where a guest-physical address of RAM is in the file.
  std::uint64_t offset_of(const RamMap& ram, GuestPhys address) const;
};

/// Aliases that are not RAM throughout are left out.
CoreHeader make_core_header(const RamMap& ram, const CoreDetails& details);

}  // namespace vmsight
