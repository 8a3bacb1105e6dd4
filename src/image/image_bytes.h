// The bytes of an image, read at any offset: a file, pieces of one, or what is unpacked on the way.
// A format that wraps another gives the one inside as ImageBytes, and what reads that one does not
// know the difference.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/os.h"
#include "vmsight/image.h"

namespace vmsight {

/// A run of bytes, half open.
struct ByteRun {
  std::uint64_t start = 0, end = 0;
};

/// May be used by several threads at once.
class ImageBytes {
 public:
  virtual ~ImageBytes() = default;

  virtual std::uint64_t size() const = 0;

  /// All of `into`. fault if some of it was left out of the image, bad_data if it lies beyond the end
  /// or is damaged, os.
  virtual Result<void> read(std::uint64_t offset, std::span<std::byte> into) const = 0;

  /// An open file that has these bytes at the same offsets, and may be mapped; -1 if there is none.
  virtual int descriptor() const = 0;

  /// Who reads one byte may as well read all of the aligned unit around it: a power of two, at least
  /// 4096.
  virtual std::uint64_t unit() const = 0;

  /// The next run at or after `offset` of bytes that are there and not known to be zeros; nullopt if
  /// there is none.
  virtual Result<std::optional<ByteRun>> next_data(std::uint64_t offset) const = 0;
};

using SharedBytes = std::shared_ptr<const ImageBytes>;

/// A regular file as it stands. unsupported for anything else.
Result<SharedBytes> open_plain_file(const std::string& path);
SharedBytes plain_file(UniqueFd fd, std::uint64_t size);

/// Bytes that somebody else keeps, and must not let go of before.
SharedBytes bytes_in_memory(std::span<const std::byte> bytes);

/// A part of other bytes, from `start` on.
SharedBytes part_of(SharedBytes whole, std::uint64_t start, std::uint64_t size);

/// A number as it stands in the image (little-endian, as this host).
template <typename T>
Result<T> number_at(const ImageBytes& bytes, std::uint64_t offset) {
  T value{};
  VMSIGHT_TRY_VOID(bytes.read(offset, std::as_writable_bytes(std::span(&value, 1))));
  return value;
}

/// Of a buffer; 0 beyond its end.
template <typename T>
T number_in(std::span<const std::byte> bytes, std::size_t offset) {
  T value{};
  if (offset > bytes.size() || bytes.size() - offset < sizeof value) return value;
  std::copy_n(bytes.data() + offset, sizeof value, reinterpret_cast<std::byte*>(&value));
  return value;
}

}  // namespace vmsight
