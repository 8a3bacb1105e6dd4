// Compressed pages. All are bounded by what they are given, whatever it holds.
#pragma once

#include <cstddef>
#include <span>

namespace vmsight {

enum class PageCodec { zlib, lzo, snappy, zstd };

/// True if `from` is exactly `into.size()` bytes, compressed. May be used by several threads at once.
bool unpack_page(PageCodec codec, std::span<const std::byte> from, std::span<std::byte> into);

}  // namespace vmsight
