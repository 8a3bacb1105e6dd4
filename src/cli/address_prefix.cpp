#include "cli/address_prefix.h"

#include <arpa/inet.h>

#include <string>

#include "base/text.h"

namespace vmsight {
namespace {

unsigned longest(int family) { return family == AF_INET ? 32 : 128; }

}  // namespace

bool AddressPrefix::set_bits(std::string_view text) {
  const auto number = parse_whole<unsigned>(text);
  if (!number || *number > longest(family)) return false;
  bits = *number;
  return true;
}

bool AddressPrefix::holds(const unsigned char* address) const {
  for (unsigned bit = 0; bit < bits; ++bit) {
    const unsigned mask = 0x80U >> (bit % 8);
    if (((address[bit / 8] ^ bytes[bit / 8]) & mask) != 0) return false;
  }
  return true;
}

std::optional<AddressPrefix> parse_address(std::string_view text) {
  AddressPrefix whole;
  whole.family = text.find(':') == text.npos ? AF_INET : AF_INET6;
  whole.bits = longest(whole.family);
  const std::string terminated(text);
  if (::inet_pton(whole.family, terminated.c_str(), whole.bytes.data()) != 1) return std::nullopt;
  return whole;
}

}  // namespace vmsight
