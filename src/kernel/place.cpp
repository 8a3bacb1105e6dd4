#include "kernel/place.h"

#include <fmt/format.h>

#include <array>
#include <charconv>

namespace vmsight {
namespace {

constexpr std::string_view place_magic = "vmsight-place 1 ";
constexpr std::uint64_t second_ns = 1'000'000'000;

/// Of a counter that ran at this rate, how far it is from where it must be.
std::uint64_t distance_ns(const KernelPlace& place, std::uint64_t ticks, std::uint64_t now_ns,
                          unsigned rate) {
  const std::uint64_t ran_ns = (ticks - place.ticks) * (second_ns / rate);
  const std::uint64_t passed_ns = now_ns - place.at_ns;
  return ran_ns > passed_ns ? ran_ns - passed_ns : passed_ns - ran_ns;
}

/// Takes a number and the character behind it.
bool take(std::string_view& text, std::uint64_t& value, char stop) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data() + text.size() || *end != stop) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
  return true;
}

}  // namespace

bool keeps_pace(const KernelPlace& place, std::uint64_t ticks, std::uint64_t now_ns) {
  constexpr std::uint64_t longest = 1ULL << 32;  // ticks of 49 days at 1000 a second; no overflow
  if (place.ticks_a_second == 0 || now_ns < place.at_ns || ticks < place.ticks ||
      ticks - place.ticks > longest) {
    return false;
  }
  return distance_ns(place, ticks, now_ns, place.ticks_a_second) <= clock_pause_ns;
}

unsigned rate_between(const KernelPlace& place, std::uint64_t ticks, std::uint64_t now_ns) {
  constexpr std::array rates = {100U, 250U, 300U, 1000U};  // kernel/Kconfig.hz
  // The nearest rates, 250 and 300, are apart by more than two pauses of the counter after 14 s.
  constexpr std::uint64_t least_ns = 20 * second_ns, longest = 1ULL << 32;
  if (now_ns < place.at_ns + least_ns || ticks <= place.ticks || ticks - place.ticks > longest)
    return 0;
  for (const unsigned rate : rates) {
    if (distance_ns(place, ticks, now_ns, rate) <= clock_pause_ns) return rate;
  }
  return 0;
}

std::string format_place(const KernelPlace& place) {
  return fmt::format("{}{} {} {} {}\n", place_magic, place.rodata.raw(), place.ticks, place.at_ns,
                     place.ticks_a_second);
}

Result<KernelPlace> parse_place(std::string_view text) {
  KernelPlace place;
  std::uint64_t rodata = 0, rate = 0;
  const bool ours = text.starts_with(place_magic);
  if (ours) text.remove_prefix(place_magic.size());
  if (!ours || !take(text, rodata, ' ') || !take(text, place.ticks, ' ') ||
      !take(text, place.at_ns, ' ') || !take(text, rate, '\n') || !text.empty() || rate > 10'000) {
    return Error{.code = ErrorCode::bad_data, .message = "read where the kernel was: not our text"};
  }
  place.rodata = GuestPhys(rodata);
  place.ticks_a_second = static_cast<unsigned>(rate);
  return place;
}

}  // namespace vmsight
