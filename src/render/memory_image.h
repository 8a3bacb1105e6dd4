// Guest memory as a file for other tools: an ELF core, or raw bytes.
//
//   +--------------+  0
//   | ELF header   |
//   | PT_NOTE      |  one NT_PRSTATUS and one QEMU note a vCPU, VMCOREINFO, VMSIGHT
//   | PT_LOAD ...  |  the kernel image at its virtual address, then every RAM range at its
//   | notes        |  address in the direct map; p_paddr is guest-physical. The image's segment
//   +--------------+  shares the bytes of the RAM it lies in, as in /proc/vmcore.
//   | RAM          |  range after range, pages of zeros are holes
//   +--------------+
//
// Formats: elf(5); the VMCOREINFO note of Linux (Documentation/admin-guide/kdump/vmcoreinfo.rst);
// QEMU's CPU note (docs of dump-guest-memory). The note VMSIGHT of type 1 is ours: u64, the
// guest-physical address of the page table of the kernel that was read.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "vmsight/memory.h"
#include "vmsight/result.h"
#include "vmsight/vm.h"

namespace vmsight {

/// Guest-physical memory that is also visible at a virtual address.
struct VirtualAlias {
  GuestPhys start;
  std::uint64_t size = 0;
  GuestVirt address;
};

/// What the core tells beside memory; everything may be absent.
struct CoreDetails {
  std::optional<GuestVirt> direct_map;  // where guest-physical 0 is mapped
  std::vector<VirtualAlias> aliases;    // the kernel image
  std::vector<VcpuRegisters> registers;
  std::string vmcoreinfo;               // text of the note
  std::optional<GuestPhys> page_table;  // of the kernel that was read
};

/// Told how many bytes of guest memory are done, of how many.
using CopyProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// Both write to an empty file open for writing, and leave it sparse. Errors: os (disk full ...),
/// vm_gone, fault.
Result<void> write_elf_core(int fd, GuestMemory& memory, const CoreDetails& details,
                            const CopyProgress& progress);
/// Byte N of the file is guest-physical address N.
Result<void> write_raw_image(int fd, GuestMemory& memory, const CopyProgress& progress);

}  // namespace vmsight
