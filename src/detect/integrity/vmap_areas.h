// What the kernel has mapped in its vmalloc and module ranges: its trees of vmap_area.
#pragma once

#include <vector>

#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

struct VmapArea {
  GuestVirt start, end;  // half-open, with the guard page
  GuestVirt caller;      // whose call of the allocator it was; 0 if the kernel does not say
};

/// Those in use, ascending. unsupported if this kernel keeps them otherwise; fault if a tree cannot be
/// read (the guest changes them all the time: the next look may succeed) or has no end.
Result<std::vector<VmapArea>> read_vmap_areas(Kernel& kernel, Reader& reader);

/// The area that holds the address; nullptr if there is none.
const VmapArea* find_area(const std::vector<VmapArea>& areas, GuestVirt address);

}  // namespace vmsight
