// VMCOREINFO: what a kernel tells crash dump tools about itself.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "vmsight/kernel.h"
#include "vmsight/memory.h"

namespace vmsight {

/// The text of the note in the guest's memory, "" if the kernel has none.
std::string read_vmcoreinfo(Kernel& kernel, GuestMemory& memory);

/// Where the kernel's top page table lies, by the text: tells the live kernel in an image that has
/// no registers. nullopt if the text does not say.
std::optional<std::uint64_t> page_table_of(std::string_view vmcoreinfo);

}  // namespace vmsight
