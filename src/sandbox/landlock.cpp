#include "sandbox/landlock.h"

#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "base/os.h"

namespace vmsight {
namespace {

/// struct landlock_ruleset_attr as the newest kernels have it; older headers end after `files`.
struct Ruleset {
  std::uint64_t files = 0;
  std::uint64_t ports = 0;   // from version 4
  std::uint64_t scopes = 0;  // from version 6
};

// Rights by the version that came with them: bits 0 to 12, then REFER, TRUNCATE, IOCTL_DEV.
constexpr std::uint64_t bits(unsigned count) { return (1ULL << count) - 1; }

Ruleset everything(int version) {
  constexpr int with_refer = 2, with_truncate = 3, with_ports = 4, with_ioctl = 5, with_scopes = 6;
  unsigned files = 13;
  if (version >= with_refer) files = 14;
  if (version >= with_truncate) files = 15;
  if (version >= with_ioctl) files = 16;
  return {.files = bits(files),
          .ports = version >= with_ports ? bits(2) : 0,
          .scopes = version >= with_scopes ? bits(2) : 0};
}

std::size_t size_for(int version) {
  if (version >= 6) return sizeof(Ruleset);
  return version >= 4 ? 2 * sizeof(std::uint64_t) : sizeof(std::uint64_t);
}

}  // namespace

int landlock_version() {
  const long version =
      ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return static_cast<int>(std::max(version, 0L));
}

Result<void> close_files_and_network() {
  const int version = landlock_version();
  if (version == 0) return {};
  const Ruleset all = everything(version);
  const UniqueFd rules(
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &all, size_for(version), 0)));
  if (!rules) return os_error(errno, "make a Landlock ruleset");
  if (::syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0)
    return os_error(errno, "restrict this process by Landlock");
  return {};
}

}  // namespace vmsight
