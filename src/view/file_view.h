// Memory images as parts of a mapped view.
#pragma once

#include "view/mapped_memory.h"
#include "vmsight/view.h"

namespace vmsight {

/// Adds the segments of an image; several images must not overlap. bad_data for segments that are
/// not whole pages, os if the file cannot be mapped.
Result<void> add_image(MappedMemory::Parts& parts, const Image& image);

}  // namespace vmsight
