// The user memory of a guest process.
#pragma once

#include "cli/target.h"

namespace vmsight {

/// The address space of a process (kernel windows included); not_found if there is no such
/// process, unsupported if it has no memory of its own (kernel threads, zombies).
Result<AddressSpace> user_space_of(Target& target, std::int32_t pid);

}  // namespace vmsight
