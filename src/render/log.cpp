#include "render/log.h"

#include <charconv>
#include <ctime>
#include <span>
#include <utility>

#include "base/units.h"
#include "render/escape.h"

namespace vmsight {
namespace {

// syslog(3)
constexpr std::string_view levels[] = {"emerg", "alert",  "crit", "err",
                                       "warn",  "notice", "info", "debug"};
constexpr std::string_view facilities[] = {
    "kern",   "user",   "mail",     "daemon", "auth",   "syslog", "lpr",    "news",
    "uucp",   "cron",   "authpriv", "ftp",    "res0",   "res1",   "res2",   "res3",
    "local0", "local1", "local2",   "local3", "local4", "local5", "local6", "local7"};

std::string name_at(std::span<const std::string_view> names, unsigned index) {
  return index < names.size() ? std::string(names[index]) : std::to_string(index);
}

std::optional<unsigned> index_of(std::span<const std::string_view> names, std::string_view name) {
  for (unsigned i = 0; i < names.size(); ++i) {
    if (names[i] == name) return i;
  }
  unsigned value = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), value);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return value < names.size() ? std::optional(value) : std::nullopt;
}

std::string local_text(std::int64_t unix_ns, const char* format) {
  const std::time_t seconds = unix_ns / ns_per_s;
  std::tm fields{};
  char text[64];
  ::localtime_r(&seconds, &fields);
  return {text, std::strftime(text, sizeof text, format, &fields)};
}

std::string seconds_text(const LogRecord& record) {
  return fmt::format("{:5}.{:06}", record.time_ns / ns_per_s, record.time_ns % ns_per_s / 1000);
}

/// Since the line before, in whole microseconds as the kernel tells times; 0 for the first, and
/// behind those from before the guest had a clock.
double passed_s(const LogRecord& record, const LogFormat& format) {
  const std::uint64_t last_us = format.last_ns.value_or(0) / 1000, now_us = record.time_ns / 1000;
  return last_us == 0 ? 0 : (static_cast<double>(now_us) - static_cast<double>(last_us)) / 1e6;
}

/// "[Nov28 19:17] " for the first line of a minute, then "[  +0.000006] ".
std::string relative_stamp(const LogRecord& record, const LogFormat& format, std::int64_t at) {
  const std::int64_t minute = at / (60 * static_cast<std::int64_t>(ns_per_s));
  if (minute != std::exchange(format.last_minute, minute)) {
    return "[" + local_text(at, "%b%e %H:%M") + "] ";
  }
  const double passed = passed_s(record, format);
  return passed < 10 ? fmt::format("[  {:+8.6f}] ", passed) : fmt::format("[ {:+9.6f}] ", passed);
}

std::string iso_stamp(const LogRecord& record, std::int64_t at) {
  const std::string zone = local_text(at, "%z");  // "+0100"
  return local_text(at, "%FT%T") + fmt::format(",{:06}{}:{} ", record.time_ns % ns_per_s / 1000,
                                               zone.substr(0, 3), zone.substr(3));
}

std::string stamp(const LogRecord& record, const LogFormat& format) {
  const std::string delta = format.delta ? fmt::format("<{:12.6f}>", passed_s(record, format)) : "";
  if (!format.timestamps) return format.delta ? "[" + delta + "] " : "";
  if (format.boot_unix_ns) {
    // The whole second of the boot and the record's own time, as dmesg does it.
    const std::int64_t second = ns_per_s;
    const std::int64_t boot = *format.boot_unix_ns - *format.boot_unix_ns % second;
    const std::int64_t at = boot + static_cast<std::int64_t>(record.time_ns);
    if (format.relative) return relative_stamp(record, format, at);
    if (format.iso) return iso_stamp(record, at);
    if (format.wall_clock) {
      return "[" + local_text(at, "%a %b %e %T %Y") + (format.delta ? " " : "") + delta + "] ";
    }
  }
  return "[" + seconds_text(record) + (format.delta ? " " : "") + delta + "] ";
}

std::string prefix_of(const LogRecord& record, const LogFormat& format) {
  if (format.raw) {
    return fmt::format("<{}>[{}] ", record.facility * 8 + record.level, seconds_text(record));
  }
  std::string prefix;
  if (format.decode) {
    prefix = fmt::format("{:<6}:{:<6}: ", facility_name(record.facility), level_name(record.level));
  }
  return prefix + stamp(record, format);
}

std::string shown_line(std::string_view line) {
  std::string text;
  while (true) {
    const std::size_t tab = std::min(line.find('\t'), line.size());
    text += for_terminal(line.substr(0, tab));
    if (tab == line.size()) return text;
    text += '\t';
    line.remove_prefix(tab + 1);
  }
}

}  // namespace

void print_log(Output& out, const std::vector<LogRecord>& records, const LogFormat& format) {
  for (const LogRecord& record : records) {
    if (out.failed()) return;
    std::string prefix = prefix_of(record, format);
    format.last_ns = record.time_ns;
    // A record of several lines: the later ones stand below the text of the first.
    std::string_view rest = record.text;
    do {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      out.print("{}{}\n", prefix, shown_line(rest.substr(0, end)));
      if (!format.prefix_each) prefix.assign(prefix.size(), ' ');
      rest.remove_prefix(std::min(end + 1, rest.size()));
    } while (!rest.empty());
  }
}

std::string level_name(unsigned level) { return name_at(levels, level); }
std::string facility_name(unsigned facility) { return name_at(facilities, facility); }
std::optional<unsigned> parse_level(std::string_view name) { return index_of(levels, name); }
std::optional<unsigned> parse_facility(std::string_view name) { return index_of(facilities, name); }

}  // namespace vmsight
