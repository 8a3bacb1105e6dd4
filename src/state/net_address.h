// Network addresses as text, in the arena.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "vmsight/state.h"

namespace vmsight {

/// Addresses as they travel: most significant byte first.
using Ipv4Bytes = std::array<std::uint8_t, 4>;
using Ipv6Bytes = std::array<std::uint8_t, 16>;

std::string_view format_address(Arena& arena, const Ipv4Bytes& address);  // "10.0.2.15"
std::string_view format_address(Arena& arena, const Ipv6Bytes& address);  // "fe80::1"
std::string_view format_prefix(Arena& arena, const Ipv4Bytes& address, unsigned bits);
std::string_view format_prefix(Arena& arena, const Ipv6Bytes& address, unsigned bits);
/// "52:54:00:12:34:56"; "" for no bytes.
std::string_view format_hardware_address(Arena& arena, std::span<const std::byte> address);

}  // namespace vmsight
