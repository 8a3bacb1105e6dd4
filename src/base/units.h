// Units that sizes and times are told in.
#pragma once

#include <cstdint>

namespace vmsight {

inline constexpr std::uint64_t mebibyte = 1u << 20;
inline constexpr std::uint64_t gibibyte = 1u << 30;
inline constexpr std::int64_t ns_per_s = 1'000'000'000;

}  // namespace vmsight
