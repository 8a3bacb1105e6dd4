// QEMU's option strings: "a,key=value,flag,path=x,,y" or a JSON object, as libvirt writes them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vmsight/result.h"

namespace vmsight {

/// One option string, in order. A first part without '=' is the value of the implied key.
class OptionList {
 public:
  /// `text` in either syntax; `,,` is a comma, a later part without '=' is on ("nokey" is off).
  /// JSON members of nested objects get dotted keys, booleans are "on" and "off".
  static Result<OptionList> parse(std::string_view text, std::string_view implied_key = "");

  /// The last value of the key, as QEMU takes it.
  std::optional<std::string_view> find(std::string_view key) const;
  std::string_view get(std::string_view key, std::string_view otherwise = "") const {
    return find(key).value_or(otherwise);
  }
  bool is_on(std::string_view key, bool otherwise = false) const;
  /// A decimal or 0x number.
  std::optional<std::uint64_t> number(std::string_view key) const;
  /// Bytes: "512M", "0.5G" ...; a bare number counts in `unit`.
  std::optional<std::uint64_t> size(std::string_view key, std::uint64_t unit = 1) const;

  const std::vector<std::pair<std::string, std::string>>& items() const { return items_; }

 private:
  std::vector<std::pair<std::string, std::string>> items_;
};

/// QEMU's size syntax: decimal, fraction or hexadecimal, with a suffix b k m g t p e of either
/// case. nullopt if it is malformed or does not fit.
std::optional<std::uint64_t> parse_size(std::string_view text, std::uint64_t unit);

/// Decimal, or hexadecimal with 0x.
std::optional<std::uint64_t> parse_number(std::string_view text);

}  // namespace vmsight
