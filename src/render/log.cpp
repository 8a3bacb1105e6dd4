#include "render/log.h"

#include <charconv>
#include <ctime>
#include <span>

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

std::string stamp(const LogRecord& record, const LogFormat& format) {
  if (!format.timestamps) return "";
  if (format.wall_clock && format.boot_unix_ns) {
    const std::time_t seconds =
        (*format.boot_unix_ns + static_cast<std::int64_t>(record.time_ns)) / ns_per_s;
    std::tm fields{};
    char text[64];
    ::localtime_r(&seconds, &fields);
    return {"[" + std::string(text, std::strftime(text, sizeof text, "%a %b %e %T %Y", &fields)) +
            "] "};
  }
  return fmt::format("[{:5}.{:06}] ", record.time_ns / ns_per_s, record.time_ns % ns_per_s / 1000);
}

}  // namespace

void print_log(Output& out, const std::vector<LogRecord>& records, const LogFormat& format) {
  for (const LogRecord& record : records) {
    if (out.failed()) return;
    std::string prefix;
    if (format.decode) {
      prefix =
          fmt::format("{:<6}:{:<6}: ", facility_name(record.facility), level_name(record.level));
    }
    prefix += stamp(record, format);
    // A record of several lines: the later ones stand below the text of the first.
    std::string_view rest = record.text;
    do {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      out.print("{}{}\n", prefix, for_terminal(rest.substr(0, end)));
      prefix.assign(prefix.size(), ' ');
      rest.remove_prefix(std::min(end + 1, rest.size()));
    } while (!rest.empty());
  }
}

std::string level_name(unsigned level) { return name_at(levels, level); }
std::string facility_name(unsigned facility) { return name_at(facilities, facility); }
std::optional<unsigned> parse_level(std::string_view name) { return index_of(levels, name); }
std::optional<unsigned> parse_facility(std::string_view name) { return index_of(facilities, name); }

}  // namespace vmsight
