// Bytes that nobody may touch for now. AddressSanitizer reports who does; other builds do nothing.
#pragma once

#include <cstddef>
#include <span>

#if defined(__SANITIZE_ADDRESS__)
#define VMSIGHT_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define VMSIGHT_POISONS 1
#endif
#endif

#ifdef VMSIGHT_POISONS
#include <sanitizer/asan_interface.h>
#endif

namespace vmsight {

#ifdef VMSIGHT_POISONS
constexpr bool poisons = true;
inline void poison(std::span<const std::byte> bytes) {
  ASAN_POISON_MEMORY_REGION(bytes.data(), bytes.size());
}
inline void unpoison(std::span<const std::byte> bytes) {
  ASAN_UNPOISON_MEMORY_REGION(bytes.data(), bytes.size());
}
#undef VMSIGHT_POISONS
#else
constexpr bool poisons = false;
inline void poison(std::span<const std::byte>) {}
inline void unpoison(std::span<const std::byte>) {}
#endif

}  // namespace vmsight
