// The memory that a kernel has for its tasks: pages of the slab cache task_struct_cachep, found by
// going through the table of all pages. What hides a process from every list leaves it there.
#pragma once

#include <functional>
#include <string>

#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

/// Calls `visit` with each place that a task may have, in use or not: whoever asks judges what is there.
/// Returns what limits the answer, "" if nothing does; unsupported if this kernel keeps no such cache.
Result<std::string> for_each_task_slot(Kernel& kernel, Reader& reader,
                                       const std::function<void(GuestVirt)>& visit);

}  // namespace vmsight
