// The kernel log as `dmesg` prints it.
#pragma once

#include <optional>

#include "render/output.h"
#include "vmsight/state.h"

namespace vmsight {

struct LogFormat {
  bool wall_clock = false;  // -T; needs boot_unix_ns
  bool decode = false;      // -x: facility and level
  bool timestamps = true;   // -t turns them off
  std::optional<std::int64_t> boot_unix_ns;
};

void print_log(Output& out, const std::vector<LogRecord>& records, const LogFormat& format);

/// "emerg" ... "debug" and "kern" ... "local7"; the number as text if there is no name.
std::string level_name(unsigned level);
std::string facility_name(unsigned facility);
/// By name or number.
std::optional<unsigned> parse_level(std::string_view name);
std::optional<unsigned> parse_facility(std::string_view name);

}  // namespace vmsight
