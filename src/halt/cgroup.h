// Where the threads of a process are among the host's control groups, and whether a group that
// freezes some of them can be made there. (Linux: Documentation/admin-guide/cgroup-v2.rst, and
// cgroup-v1/freezer-subsystem.rst.) Nothing here changes anything.
#pragma once

#include <sys/types.h>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/result.h"

namespace vmsight {

/// How one version of cgroups spells it.
struct Freezing {
  std::string_view name;     // for people
  int version;               // 1 or 2
  std::string_view members;  // lists threads; taking one in is writing it there
  std::string_view control;
  std::string_view freeze, thaw;  // written to `control`
  std::string_view state;
  std::string_view frozen;  // what `state` then contains
};
inline constexpr Freezing freezing_v1{"cgroup v1", 1,        "tasks",         "freezer.state",
                                      "FROZEN",    "THAWED", "freezer.state", "FROZEN"};
inline constexpr Freezing freezing_v2{"cgroup v2", 2,   "cgroup.threads", "cgroup.freeze",
                                      "1",         "0", "cgroup.events",  "frozen 1"};

/// Where a hierarchy is mounted: `root` of it is seen at `path`.
struct CgroupMount {
  std::string root, path;
};
/// The first in the text of /proc/self/mountinfo that is of this version and, of version 1, has this controller.
std::optional<CgroupMount> find_cgroup_mount(std::string_view mountinfo, int version,
                                             std::string_view controller = "freezer");

/// The group in the text of /proc/PID/task/TID/cgroup, as a path from the hierarchy's root; of version 1 the one of this
/// controller.
std::optional<std::string_view> find_cgroup(std::string_view text, int version,
                                            std::string_view controller = "freezer");

/// The directories of the groups that these threads of a process are in, each once; threads that
/// ended are left out. unsupported if the hierarchy is not mounted or not all of it is visible.
Result<std::vector<std::string>> groups_of(pid_t pid, std::span<const pid_t> tids,
                                           const Freezing& how);

/// Whether threads in this group can be frozen in a child of it. unsupported or permission, with
/// the reason.
Result<void> check_freezable(const std::string& group, const Freezing& how);

/// The name of every group that we make begins so.
inline constexpr std::string_view our_group_prefix = "vmsight-";

/// A file of a group, "" if it cannot be read; they are small.
std::string read_group_file(const std::string& path);

}  // namespace vmsight
