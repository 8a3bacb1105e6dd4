#include "state/net_address.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <cstring>

namespace vmsight {
namespace {

constexpr std::size_t longest_address = INET6_ADDRSTRLEN + 4;  // with "/128"

/// Formats into the arena without a copy in between.
template <typename... Args>
std::string_view format_into(Arena& arena, fmt::format_string<Args...> format, Args&&... args) {
  const std::span<char> room = arena.allocate(longest_address);
  const auto result =
      fmt::format_to_n(room.data(), room.size(), format, std::forward<Args>(args)...);
  return arena.shrink(room, std::min(result.size, room.size()));
}

/// inet_ntop writes the canonical form: the longest run of zeros is "::".
std::string_view ipv6_text(const Ipv6Bytes& address, std::span<char> room) {
  const char* text =
      ::inet_ntop(AF_INET6, address.data(), room.data(), static_cast<socklen_t>(room.size()));
  VMSIGHT_CHECK(text != nullptr);
  return text;
}

}  // namespace

std::string_view format_address(Arena& arena, const Ipv4Bytes& address) {
  if (address == Ipv4Bytes{}) return "0.0.0.0";
  if (address == Ipv4Bytes{127, 0, 0, 1}) return "127.0.0.1";
  return format_into(arena, "{}.{}.{}.{}", address[0], address[1], address[2], address[3]);
}

std::string_view format_address(Arena& arena, const Ipv6Bytes& address) {
  if (address == Ipv6Bytes{}) return "::";
  const std::span<char> room = arena.allocate(longest_address);
  return arena.shrink(room, ipv6_text(address, room).size());
}

std::string_view format_prefix(Arena& arena, const Ipv4Bytes& address, unsigned bits) {
  return format_into(arena, "{}.{}.{}.{}/{}", address[0], address[1], address[2], address[3], bits);
}

std::string_view format_prefix(Arena& arena, const Ipv6Bytes& address, unsigned bits) {
  std::array<char, longest_address> text;
  return format_into(arena, "{}/{}", ipv6_text(address, text), bits);
}

std::string_view format_hardware_address(Arena& arena, std::span<const std::byte> address) {
  constexpr std::string_view digits = "0123456789abcdef";
  if (address.empty()) return "";
  const std::span<char> text = arena.allocate(address.size() * 3 - 1);
  for (std::size_t i = 0; i < address.size(); ++i) {
    const auto byte = static_cast<unsigned>(address[i]);
    if (i != 0) text[i * 3 - 1] = ':';
    text[i * 3] = digits[byte >> 4];
    text[i * 3 + 1] = digits[byte & 15];
  }
  return {text.data(), text.size()};
}

}  // namespace vmsight
