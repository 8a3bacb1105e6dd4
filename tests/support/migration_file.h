// Builds migration files as QEMU writes them (migration/savevm.c, migration/ram.c).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace vmsight::test {

class MigrationFile {
 public:
  MigrationFile() { number<std::uint32_t>(0x5145564d).number<std::uint32_t>(3); }

  template <typename T>
  MigrationFile& number(T value) {
    for (int shift = 8 * sizeof(T) - 8; shift >= 0; shift -= 8) {
      bytes.push_back(static_cast<std::byte>(value >> shift));
    }
    return *this;
  }
  MigrationFile& byte(unsigned value) { return number(static_cast<std::uint8_t>(value)); }
  MigrationFile& text(std::string_view value) {
    for (const char c : value) bytes.push_back(static_cast<std::byte>(c));
    return *this;
  }
  MigrationFile& name(std::string_view value) {
    return byte(static_cast<unsigned>(value.size())).text(value);
  }
  MigrationFile& configuration(std::string_view capability = "") {
    byte(7).number<std::uint32_t>(9).text("pc-q35-10");
    if (capability.empty()) return *this;
    byte(5).name("configuration/capabilities").number<std::uint32_t>(1);
    return number<std::uint32_t>(1).name(capability);
  }
  MigrationFile& section(unsigned type, std::string_view called, unsigned version = 4) {
    byte(type).number<std::uint32_t>(2).name(called);
    return number<std::uint32_t>(0).number<std::uint32_t>(version);
  }
  MigrationFile& go_on(unsigned type) { return byte(type).number<std::uint32_t>(2); }
  MigrationFile& footer() { return byte(0x7e).number<std::uint32_t>(2); }
  MigrationFile& word(std::uint64_t value) { return number<std::uint64_t>(value); }
  MigrationFile& fill(unsigned value, std::size_t count) {
    bytes.insert(bytes.end(), count, static_cast<std::byte>(value));
    return *this;
  }

  std::vector<std::byte> bytes;
};

}  // namespace vmsight::test
