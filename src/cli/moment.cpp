#include "cli/moment.h"

#include <fmt/format.h>
#include <algorithm>
#include <charconv>
#include <ctime>
#include <optional>

namespace vmsight {
namespace {

constexpr double ns_per_s = 1e9;

Error not_a_time(const std::string& text) {
  return {.code = ErrorCode::usage,
          .message = "'" + text + "' is not a time",
          .hint = "write 90s, 10m, 2h, 1d, @12.5 or \"2026-01-31 12:00\""};
}

std::optional<std::int64_t> seconds_text(std::string_view text, double unit) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (!whole || !(value >= 0) || value * unit > 1e9) return std::nullopt;
  return static_cast<std::int64_t>(value * unit * ns_per_s);
}

std::optional<std::int64_t> date_text(const std::string& text) {
  for (const char* format :
       {"%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"}) {
    std::tm fields{};
    fields.tm_isdst = -1;
    const char* end = ::strptime(text.c_str(), format, &fields);
    if (end != nullptr && *end == '\0') return std::int64_t{::mktime(&fields)} * 1'000'000'000;
  }
  return std::nullopt;
}

}  // namespace

Result<Moment> parse_moment(const std::string& text) {
  if (text.starts_with('@')) {
    if (const auto ns = seconds_text(std::string_view(text).substr(1), 1)) {
      return Moment{Moment::Kind::after_boot, *ns};
    }
    return not_a_time(text);
  }
  constexpr std::pair<char, double> units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
  for (const auto& [letter, unit] : units) {
    if (!text.ends_with(letter)) continue;
    const auto ns = seconds_text(std::string_view(text).substr(0, text.size() - 1), unit);
    if (ns) return Moment{Moment::Kind::ago, *ns};
  }
  if (const auto ns = date_text(text)) return Moment{Moment::Kind::wall_clock, *ns};
  return not_a_time(text);
}

Result<std::uint64_t> guest_time(const std::string& text, const OsInfo& os) {
  VMSIGHT_TRY(const Moment moment, parse_moment(text));
  std::int64_t ns = moment.ns;
  if (moment.kind == Moment::Kind::ago) {
    if (!os.uptime_s) {
      return Error{.code = ErrorCode::unsupported,
                   .message = "the guest's uptime could not be read",
                   .hint = "give a time after its boot: @SECONDS"};
    }
    ns = static_cast<std::int64_t>(*os.uptime_s) * 1'000'000'000 - ns;
  }
  if (moment.kind == Moment::Kind::wall_clock) {
    if (!os.boot_unix_ns) {
      return Error{.code = ErrorCode::unsupported,
                   .message = "the guest's clock could not be read",
                   .hint = "give a time after its boot (@SECONDS) or before now (10m)"};
    }
    ns -= *os.boot_unix_ns;
  }
  return static_cast<std::uint64_t>(std::max<std::int64_t>(ns, 0));
}

}  // namespace vmsight
