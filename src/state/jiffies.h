// The kernel's coarse clock: timestamps of objects that age count in its ticks.
#pragma once

#include <cstdint>
#include <optional>

#include "state/members.h"
#include "vmsight/reader.h"

namespace vmsight {

/// How often it ticks is compiled into the kernel; only the clock source made of the ticks
/// themselves says it, as the length of one tick.
class Jiffies {
 public:
  static Jiffies resolve(Members& members);

  /// nullopt if this kernel does not tell.
  std::optional<std::uint64_t> per_second(Reader& reader) const;
  /// Whole seconds since a timestamp, 0 if it lies ahead; nullopt if this kernel does not tell.
  std::optional<std::uint64_t> seconds_since(Reader& reader, std::uint64_t stamp) const;

 private:
  GuestVirt now_;   // jiffies_64
  GuestVirt tick_;  // struct clocksource of the ticks
  Offset mult_ = absent, shift_ = absent;
};

}  // namespace vmsight
