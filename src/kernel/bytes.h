// Little-endian numbers out of bytes that were copied from a guest, and a hash of bytes.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

#include "vmsight/result.h"

namespace vmsight {

/// The caller has checked the bounds; an overrun would be our own bug.
template <typename T>
T load_le(std::span<const std::byte> bytes, std::size_t at) {
  VMSIGHT_CHECK(at <= bytes.size() && sizeof(T) <= bytes.size() - at);
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

/// FNV-1a, 64 bits: notices damage, not malice.
constexpr std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

}  // namespace vmsight
