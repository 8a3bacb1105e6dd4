#include "study/allotment.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
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
constexpr std::string_view prefix = "vmsight-study-";

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

/// Where groups that share out CPU time are, and where this process is among them.
struct Hierarchy {
  int version = 0;
  std::string top, own;  // folders
};

Result<Hierarchy> hierarchy() {
  VMSIGHT_TRY(const std::string mountinfo, read_proc_file(::getpid(), "mountinfo"));
  VMSIGHT_TRY(const std::string groups, read_proc_file(::getpid(), "cgroup"));
  for (const int version : {1, 2}) {
    const auto mount = find_cgroup_mount(mountinfo, version, "cpu");
    const auto group = find_cgroup(groups, version, "cpu");
    if (!mount || !group) continue;
    std::string_view below = *group;
    if (mount->root != "/" && below.starts_with(mount->root))
      below.remove_prefix(mount->root.size());
    return Hierarchy{version, mount->path, mount->path + std::string(below)};
  }
  return cannot("no control groups are mounted");
}

/// Those of studies that were killed.
void remove_left_groups(const std::string& top) {
  const Directory all = list_directory(top);
  while (const dirent* entry = all ? ::readdir(all.get()) : nullptr) {
    const std::string_view name = entry->d_name;
    if (!name.starts_with(prefix)) continue;
    const auto pid = parse_whole<pid_t>(name.substr(prefix.size()));
    if (pid && ::kill(*pid, 0) != 0 && errno == ESRCH)
      ::rmdir(fmt::format("{}/{}", top, name).c_str());
  }
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
  VMSIGHT_TRY(const Hierarchy found, hierarchy());
  remove_left_groups(found.top);
  const std::string path = fmt::format("{}/{}{}", found.top, prefix, ::getpid());
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST)
    return cannot(os_error(errno, "make " + path).message);
  CpuAllotment made(found.own, path);
  VMSIGHT_TRY_VOID(set_quota(path, found.version, percent));
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
      if (!pid.empty()) static_cast<void>(write_file(own_ + "/" + members, pid));
    }
    const timespec time{.tv_sec = 0, .tv_nsec = 10'000'000};
    ::clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
  }
  path_.clear();
}

}  // namespace vmsight
