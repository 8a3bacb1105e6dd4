// Times on the command line, by the guest's clock.
#pragma once

#include <string>

#include "vmsight/result.h"
#include "vmsight/state.h"

namespace vmsight {

inline constexpr const char* moment_help =
    "from: 90s, 10m, 2h or 1d ago, @SECONDS after boot, or \"2026-01-31 12:00[:00]\"";

/// What the user wrote, not yet tied to a guest.
struct Moment {
  enum class Kind { ago, after_boot, wall_clock };
  Kind kind = Kind::ago;
  std::int64_t ns = 0;  // before now; after boot; after 1970 in the local time zone
};
Result<Moment> parse_moment(const std::string& text);

/// Nanoseconds after the guest's boot. unsupported if its clock could not be read.
Result<std::uint64_t> guest_time(const std::string& text, const OsInfo& os);

}  // namespace vmsight
