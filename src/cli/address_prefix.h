// Leading bits of an IP address: "10.0.0.0/8".
#pragma once

#include <sys/socket.h>

#include <array>
#include <optional>
#include <string_view>

namespace vmsight {

struct AddressPrefix {
  int family = AF_UNSPEC;  // AF_INET, AF_INET6
  std::array<unsigned char, 16> bytes{};
  unsigned bits = 0;

  /// False if the text is no number of bits that such an address has.
  bool set_bits(std::string_view text);
  /// Whether an address of its family, in network order, begins with it.
  bool holds(const unsigned char* address) const;
};

/// A whole address, all of whose bits count.
std::optional<AddressPrefix> parse_address(std::string_view text);

}  // namespace vmsight
