// Small values as the Linux tools print them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace vmsight {

/// The text, or "?" if it could not be read.
std::string known(std::string_view text);
/// "254:1" of major << 20 | minor.
std::string device_name(std::uint64_t device);
/// The terminal of field 7 of /proc/PID/stat: "ttyS0", "pts/3", "?" for none.
std::string terminal_name(std::int32_t tty_nr);
/// CPU time as `ps` prints TIME: "00:01:02", "1-02:03:04".
std::string cpu_time(std::uint64_t ns);
/// Elapsed time as `ps` prints ELAPSED: "01:02", "3-04:05:06".
std::string elapsed_time(std::uint64_t ns);
/// "512 MiB", "1.5 GiB", "17 KiB", "9 B".
std::string byte_size(std::uint64_t bytes);
/// "1.25 ms", "3.1 s", "870 us".
std::string duration(std::uint64_t ns);

}  // namespace vmsight
