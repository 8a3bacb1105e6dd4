// The two kinds of memory image that open_image() reads. Images are not trusted: every size and
// offset in them is checked against the file.
#pragma once

#include <string>
#include <vector>

#include "base/os.h"
#include "vmsight/vm.h"

namespace vmsight {

/// An open image file and its size at that time.
struct ImageFile {
  UniqueFd fd;
  std::uint64_t size = 0;
  /// Exactly `into.size()` bytes, or bad_data (beyond the end) or os.
  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const;
};

/// An ELF core whose PT_LOAD segments carry guest-physical addresses (p_paddr): QEMU's
/// dump-guest-memory, kdump's /proc/vmcore, vmsight snapshot. Fills segments, registers (QEMU's
/// CPU notes, QEMU's target/i386/arch_dump.c) and vmcoreinfo.
Result<Image> read_elf_core(const ImageFile& file);

/// Guest RAM without any header: the content of the RAM block (a memory-backend-file, say), or
/// all of guest-physical memory (pmemsave from 0). Where RAM goes on above 4 GiB is not written
/// in it; the firmware's ACPI tables, which lie at the end of the RAM below, tell.
Result<Image> read_raw_memory(const ImageFile& file);

}  // namespace vmsight
