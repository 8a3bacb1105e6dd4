// QEMU's migration file, version 3: where each page of guest RAM lies in it. Nothing but RAM is
// understood; reading stops where the devices begin. Numbers are big endian.
//
//   file     "QEVM" 3 | configuration | ram: start, parts, end | devices ...
//   stream   words of (offset in block | flags), each with its data
//   mapped   each block has its own place in the file: page n at pages_at + n * 4096
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "image/image_bytes.h"
#include "vmsight/memory.h"

namespace vmsight {

/// A RAM block that is wanted, and how much of it.
struct WantedBlock {
  std::string name;        // "pc.ram"
  std::uint64_t size = 0;  // bytes, a multiple of 4096
};

struct StreamBlock {
  bool found = false;  // the file has it, and at least as much as is wanted
  bool mapped = false;
  std::uint64_t pages_at = 0;  // if mapped; holes of the file are pages of zeros
  /// Otherwise where each page begins in the file, the last one written; 0 for a page of zeros.
  std::vector<std::uint64_t> pages;
};

/// One for each wanted block, in that order. bad_data if the file contradicts itself or ends
/// within RAM; unsupported if it uses what we never ask QEMU for (compression, multifd ...).
/// Memory: 8 bytes for each wanted page, whatever the file says.
Result<std::vector<StreamBlock>> parse_migration_stream(const ImageBytes& file,
                                                        std::span<const WantedBlock> wanted);
Result<std::vector<StreamBlock>> parse_migration_stream(std::span<const std::byte> file,
                                                        std::span<const WantedBlock> wanted);

/// The RAM blocks that the file has, with all of their sizes, in its order. The same errors.
Result<std::vector<WantedBlock>> blocks_of_migration_stream(const ImageBytes& file);

}  // namespace vmsight
