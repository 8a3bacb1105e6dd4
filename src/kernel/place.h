// Where the kernel of a running VM was when it was last looked at, so that the next attach need not
// search RAM. It is a hint: the kernel must be there, and its clock must show that it runs. After a
// reboot the old image often lies in RAM whole, but its clock stands.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "vmsight/address.h"
#include "vmsight/result.h"

namespace vmsight {

struct KernelPlace {
  GuestPhys rodata;             // start of the kernel's read-only data
  std::uint64_t ticks = 0;      // its jiffies_64 ...
  std::uint64_t at_ns = 0;      // ... at this time of the host's monotonic clock
  unsigned ticks_a_second = 0;  // CONFIG_HZ; 0 = not known yet: two readings tell
  friend bool operator==(const KernelPlace&, const KernelPlace&) = default;
};

/// The counter of an idle, tickless kernel pauses for so long: a guest that was reset less than this
/// ago is taken for the one before.
inline constexpr std::uint64_t clock_pause_ns = 1'100'000'000;

/// Whether the counter is where it must be now if the kernel ran all the time. False if the rate is
/// not known, or the guest was paused or has fallen behind: then only a counter that moves shows it.
bool keeps_pace(const KernelPlace& place, std::uint64_t ticks, std::uint64_t now_ns);

/// CONFIG_HZ from a second reading, if it was long enough after the first; 0 if it cannot be told.
unsigned rate_between(const KernelPlace& place, std::uint64_t ticks, std::uint64_t now_ns);

/// One line of text, and back. bad_data if it is not one of ours.
std::string format_place(const KernelPlace& place);
Result<KernelPlace> parse_place(std::string_view text);

}  // namespace vmsight
