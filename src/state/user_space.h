// The user memory of a guest process.
#pragma once

#include <cstdint>

#include "vmsight/kernel.h"
#include "vmsight/memory.h"

namespace vmsight {

/// not_found. PIDs are those of the guest's root namespace.
Error no_such_pid(std::int32_t pid);

/// The address space of a process (kernel windows included); not_found if there is no such
/// process, unsupported if it has no memory of its own (kernel threads, zombies).
Result<AddressSpace> user_space_of(Kernel& kernel, GuestMemory& memory, std::int32_t pid);

}  // namespace vmsight
