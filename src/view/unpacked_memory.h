// A memory image whose bytes must be unpacked or put together: each page once, into a frame that is
// kept as long as memory allows, for an image does not change.
#pragma once

#include <memory>

#include "vmsight/image.h"
#include "vmsight/memory.h"

namespace vmsight {

struct UnpackLimits {
  /// Pages that are kept. One view may not touch more: pointers handed out stay valid for all of it.
  std::uint32_t max_pages = 262144;  // 1 GiB
};

/// bad_data for segments that are not whole pages; unsupported for more than 16 TiB of RAM.
Result<std::unique_ptr<GuestMemory>> open_unpacked_view(const Image& image,
                                                        const UnpackLimits& limits = {});

}  // namespace vmsight
