// usermode-helpers: programs that the kernel starts by itself, as root.
#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"

namespace vmsight {
namespace {

struct Setting {
  std::string_view symbol, when;
  std::array<std::string_view, 6> usual;  // exact, or "...*"
};

constexpr Setting settings[] = {
    {"modprobe_path",
     "a module is wanted",
     {"/sbin/modprobe", "/usr/sbin/modprobe", "/usr/bin/modprobe", "/bin/modprobe"}},
    {"core_pattern",
     "a program crashes",
     {"core", "core.%p", "|/usr/lib/systemd/systemd-coredump *", "|/lib/systemd/systemd-coredump *",
      "|/usr/share/apport/apport *", "|/usr/libexec/abrt-hook-ccpp *"}},
    {"poweroff_cmd", "the guest is to be switched off", {"/sbin/poweroff", "/usr/sbin/poweroff"}},
};

bool matches(std::string_view pattern, std::string_view value) {
  if (!pattern.ends_with('*')) return pattern == value;
  return value.starts_with(pattern.substr(0, pattern.size() - 1));
}

/// Where programs of the system are not: anybody may write there, or what is there is gone after a boot.
bool is_odd_place(std::string_view program) {
  constexpr std::string_view places[] = {"/tmp/", "/var/tmp/", "/dev/",
                                         "/run/", "/proc/",    "/home/"};
  if (program.starts_with('|')) program.remove_prefix(1);
  return !program.starts_with('/') ||
         std::ranges::any_of(places, [&](std::string_view at) { return program.starts_with(at); });
}

Result<void> check_helpers(Look& look) {
  for (const Setting& setting : settings) {
    const auto at = look.kernel.symbol(setting.symbol);
    if (!at) continue;
    std::array<char, 256> buffer;
    const std::string value(look.reader.c_string(*at, buffer));
    if (!look.reader.ok()) {
      look.reader.clear_fault();
      look.note = fmt::format("{} is not readable", setting.symbol);
      continue;
    }
    ++look.looked_at;
    // Nothing is started by an empty one; what is no pipe is only the name of a file.
    const bool starts = setting.symbol != "core_pattern" || value.starts_with('|');
    const bool usual = std::ranges::any_of(
        setting.usual, [&](std::string_view pattern) { return matches(pattern, value); });
    if (value.empty() || usual || !starts) continue;
    look.find({.what = fmt::format("{} is \"{}\": it is started when {}", setting.symbol, value,
                                   setting.when),
               .object = std::string(setting.symbol),
               .sources = {std::string(setting.symbol)},
               .sureness = is_odd_place(value) ? Sureness::likely : Sureness::hint,
               .address = *at});
  }
  if (look.looked_at == 0) return lacks("modprobe_path that can be read");
  return {};
}

}  // namespace

extern const IntegrityCheck helpers_check{
    .info = {.name = "usermode-helpers",
             .what = "programs that the kernel starts by itself are the usual ones",
             .family = "settings"},
    .run = check_helpers,
};

}  // namespace vmsight
