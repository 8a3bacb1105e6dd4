#include "cli/address_argument.h"

#include "kernel/find_symbol.h"

#include <algorithm>
#include <charconv>
#include <string>

namespace vmsight {
namespace {

std::optional<std::uint64_t> number_in_base(std::string_view text, int base) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// As /proc/kallsyms writes addresses: 16 hexadecimal digits without 0x.
std::optional<std::uint64_t> bare_address(std::string_view text) {
  return text.size() == 16 ? number_in_base(text, 16) : std::nullopt;
}

}  // namespace

std::optional<std::uint64_t> parse_unsigned(std::string_view text) {
  if (text.starts_with("0x") || text.starts_with("0X")) return number_in_base(text.substr(2), 16);
  return number_in_base(text, 10);
}

Result<std::uint64_t> parse_size(std::string_view text) {
  std::string_view digits = text;
  unsigned shift = 0;
  constexpr std::pair<char, unsigned> units[] = {{'K', 10}, {'M', 20}, {'G', 30}};
  for (const auto& [letter, bits] : units) {
    if (!text.ends_with(letter)) continue;
    shift = bits;
    digits.remove_suffix(1);
  }
  const auto value = parse_unsigned(digits);
  if (value && *value <= (~std::uint64_t{0} >> shift)) return *value << shift;
  return Error{.code = ErrorCode::usage,
               .message = fmt::format("'{}' is not a number of bytes", text),
               .hint = "write 256, 0x100, 64K, 2M or 1G"};
}

Result<GuestVirt> parse_virtual(Kernel& kernel, std::string_view text) {
  if (const auto value = parse_unsigned(text)) return GuestVirt(*value);
  if (const auto value = bare_address(text)) return GuestVirt(*value);
  const std::size_t plus = text.find('+');
  std::uint64_t offset = 0;
  if (plus != std::string_view::npos) {
    const auto value = parse_unsigned(text.substr(plus + 1));
    if (!value) {
      return Error{.code = ErrorCode::usage,
                   .message = fmt::format("'{}' is not an address", text),
                   .hint = "write 0xADDRESS, SYMBOL or SYMBOL+0xOFFSET"};
    }
    offset = *value;
  }
  VMSIGHT_TRY(const GuestVirt base, find_symbol(kernel, text.substr(0, plus)));
  return base + offset;
}

}  // namespace vmsight
