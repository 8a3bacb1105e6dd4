#include "render/format.h"

#include <fmt/format.h>
#include <array>

#include "base/units.h"

namespace vmsight {
namespace {

std::string clock(std::uint64_t seconds, bool always_hours) {
  const std::uint64_t days = seconds / 86400, hours = seconds / 3600 % 24;
  const std::uint64_t minutes = seconds / 60 % 60;
  std::string text = days > 0 ? fmt::format("{}-", days) : "";
  if (days > 0 || hours > 0 || always_hours) text += fmt::format("{:02}:", hours);
  return text + fmt::format("{:02}:{:02}", minutes, seconds % 60);
}

}  // namespace

std::string known(std::string_view text) {
  return text.data() == nullptr ? "?" : std::string(text);
}

std::string device_name(std::uint64_t device) {
  return fmt::format("{}:{}", device >> 20, device & 0xfffff);
}

std::string terminal_name(std::int32_t tty_nr) {
  // new_encode_dev(): minor bits 0-7, major bits 8-19, the rest of the minor above.
  const auto number = static_cast<std::uint32_t>(tty_nr);
  const unsigned major = number >> 8 & 0xfff;
  const unsigned minor = (number & 0xff) | (number >> 12 & 0xfff00);
  switch (major) {  // Documentation/admin-guide/devices.txt of Linux
    case 0:
      return "?";
    case 4:
      return minor < 64 ? fmt::format("tty{}", minor) : fmt::format("ttyS{}", minor - 64);
    case 5:
      return minor == 1 ? "console" : fmt::format("5:{}", minor);
    case 229:
      return fmt::format("hvc{}", minor);
    default:
      break;
  }
  if (major >= 136 && major < 144) return fmt::format("pts/{}", (major - 136) * 256 + minor);
  return fmt::format("{}:{}", major, minor);
}

std::string cpu_time(std::uint64_t ns) { return clock(ns / ns_per_s, true); }
std::string elapsed_time(std::uint64_t ns) { return clock(ns / ns_per_s, false); }

std::string byte_size(std::uint64_t bytes) {
  static constexpr std::array units = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  const bool whole = value == static_cast<double>(static_cast<std::uint64_t>(value));
  return whole || value >= 100 ? fmt::format("{:.0f} {}", value, units[unit])
                               : fmt::format("{:.1f} {}", value, units[unit]);
}

std::string duration(std::uint64_t ns) {
  const auto value = static_cast<double>(ns);
  if (ns < 1'000'000) return fmt::format("{:.0f} us", value / 1e3);
  if (ns < ns_per_s) return fmt::format("{:.1f} ms", value / 1e6);
  return fmt::format("{:.2f} s", value / 1e9);
}

}  // namespace vmsight
