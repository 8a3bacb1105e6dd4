// Takes values from a fuzzer's bytes; zeros when they run out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace vmsight::test {

class FuzzInput {
 public:
  FuzzInput(const std::uint8_t* data, std::size_t size)
      : rest_(reinterpret_cast<const std::byte*>(data), size) {}

  bool empty() const { return rest_.empty(); }

  template <typename T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    const std::span<const std::byte> bytes = take_bytes(sizeof(T));
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  /// A number in [low, high].
  std::uint64_t take_in(std::uint64_t low, std::uint64_t high) {
    return low + take<std::uint64_t>() % (high - low + 1);
  }
  /// At most `size` bytes.
  std::span<const std::byte> take_bytes(std::size_t size) {
    const std::span<const std::byte> bytes = rest_.first(std::min(size, rest_.size()));
    rest_ = rest_.subspan(bytes.size());
    return bytes;
  }
  std::span<const std::byte> take_rest() { return take_bytes(rest_.size()); }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace vmsight::test
