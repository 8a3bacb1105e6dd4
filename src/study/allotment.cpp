#include "study/allotment.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <optional>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/text.h"
#include "halt/cgroup.h"
#include "host/process.h"

namespace vmsight {
namespace {

constexpr unsigned period_us = 100'000;
constexpr const char* members = "cgroup.procs";

Error cannot(std::string_view why) {
  return {.code = ErrorCode::unsupported,
          .message = fmt::format("hold vmsight to a part of a core: {}", why),
          .hint = "`systemd-run --scope -p CPUQuota=25% vmsight study loop ...` does it, too"};
}

Result<void> write_file(const std::string& path, std::string_view text) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return os_error(errno, "write " + path);
  return {};
}

/// The first hierarchy that can share out CPU time.
Result<std::pair<std::string, int>> hierarchy() {
  VMSIGHT_TRY(const std::string mountinfo, read_proc_file(::getpid(), "mountinfo"));
  if (const auto one = find_cgroup_mount(mountinfo, 1, "cpu")) return std::pair(one->path, 1);
  const auto two = find_cgroup_mount(mountinfo, 2, "");
  if (!two) return cannot("no control groups are mounted");
  return std::pair(two->path, 2);
}

Result<void> set_quota(const std::string& group, int version, double percent) {
  const auto quota = static_cast<unsigned>(percent / 100 * period_us);
  if (version == 1) {
    VMSIGHT_TRY_VOID(write_file(group + "/cpu.cfs_period_us", std::to_string(period_us)));
    return write_file(group + "/cpu.cfs_quota_us", std::to_string(quota));
  }
  if (::access((group + "/cpu.max").c_str(), F_OK) != 0)
    return cannot("the host's groups have no controller \"cpu\" (cgroup.subtree_control)");
  return write_file(group + "/cpu.max", fmt::format("{} {}", quota, period_us));
}

}  // namespace

Result<CpuAllotment> CpuAllotment::make(double percent) {
  VMSIGHT_TRY(const auto found, hierarchy());
  const auto& [parent, version] = found;
  const std::string path = fmt::format("{}/vmsight-study-{}", parent, ::getpid());
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST)
    return cannot(os_error(errno, "make " + path).message);
  CpuAllotment made(parent, path);
  VMSIGHT_TRY_VOID(set_quota(path, version, percent));
  return made;
}

Result<void> CpuAllotment::enter() const {
  return write_file(path_ + "/" + members, std::to_string(::getpid()));
}

void CpuAllotment::end() {
  if (path_.empty()) return;
  // A guard that has nothing to undo ends within milliseconds of what started it.
  constexpr int attempts = 100;
  for (int i = 0; i < attempts && ::rmdir(path_.c_str()) != 0; ++i) {
    const std::string left = read_group_file(path_ + "/" + members);
    for (const std::string_view pid : split_at(left, '\n')) {
      if (!pid.empty()) static_cast<void>(write_file(parent_ + "/" + members, pid));
    }
    const timespec time{.tv_sec = 0, .tv_nsec = 10'000'000};
    ::clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
  }
  path_.clear();
}

}  // namespace vmsight
