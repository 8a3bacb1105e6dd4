// The kernel log as `dmesg` prints it.
#pragma once

#include <optional>

#include "render/output.h"
#include "vmsight/state.h"

namespace vmsight {

struct LogFormat {
  bool wall_clock = false;   // -T; needs boot_unix_ns, as `relative` and `iso` do
  bool decode = false;       // -x: facility and level
  bool timestamps = true;    // -t turns them off
  bool relative = false;     // -e: the minute, then what passed since the line before
  bool iso = false;          // --time-format iso
  bool delta = false;        // -d: what passed since the line before, too
  bool raw = false;          // -r: "<6>" and the time, as syslog(2) gives them
  bool prefix_each = false;  // -p: of a record of several lines
  std::optional<std::int64_t> boot_unix_ns;
  /// What was printed last: for what passed since. Kept from one call to the next.
  mutable std::optional<std::uint64_t> last_ns{};
  mutable std::int64_t last_minute = -1;
};

/// TABs stay as they are; all else that a terminal might obey does not.
void print_log(Output& out, const std::vector<LogRecord>& records, const LogFormat& format);

/// "emerg" ... "debug" and "kern" ... "local7"; the number as text if there is no name.
std::string level_name(unsigned level);
std::string facility_name(unsigned facility);
/// By name or number.
std::optional<unsigned> parse_level(std::string_view name);
std::optional<unsigned> parse_facility(std::string_view name);

}  // namespace vmsight
