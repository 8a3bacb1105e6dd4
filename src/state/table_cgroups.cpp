#include "state/records.h"

namespace vmsight {
namespace {

constexpr Field<Cgroup> cgroup_fields[] = {
    telling<&Cgroup::hierarchy>("hierarchy", "",
                                "number in /proc/PID/cgroup; 0 is the unified one, v2"),
    field<&Cgroup::name>("name", "", "of a named hierarchy"),
    telling<&Cgroup::path>("path", "", "from the root of the hierarchy"),
    telling<&Cgroup::id>("id", "", "inode of its directory"),
    changing<&Cgroup::controllers>("controllers", "", "that it can be controlled by"),
    field<&Cgroup::memory_bytes>("memory_bytes", "bytes", "in use, by it and those below"),
    changing<&Cgroup::memory_min>("memory_min", "bytes", "memory.min, null if it is max"),
    changing<&Cgroup::memory_low>("memory_low", "bytes", "memory.low, null if it is max"),
    changing<&Cgroup::memory_high>("memory_high", "bytes", "memory.high, null if there is none"),
    changing<&Cgroup::memory_max>("memory_max", "bytes", "limit, null if there is none"),
    field<&Cgroup::swap_bytes>("swap_bytes", "bytes", "in use"),
    changing<&Cgroup::swap_max>("swap_max", "bytes", "limit, null if there is none"),
    field<&Cgroup::pids>("pids", "", "tasks in it and below"),
    changing<&Cgroup::pids_max>("pids_max", "", "limit, null if there is none"),
    changing<&Cgroup::cpu_weight>("cpu_weight", "", "cpu.weight of v2"),
    changing<&Cgroup::cpu_shares>("cpu_shares", "", "cpu.shares of v1"),
    changing<&Cgroup::cpu_quota_ns>("cpu_quota_ns", "ns", "a period, null if there is none"),
    changing<&Cgroup::cpu_period_ns>("cpu_period_ns", "ns", "of the quota"),
    field<&Cgroup::cpu_usage_ns>("cpu_usage_ns", "ns", "of CPUs, by it and those below (v2)"),
};
constexpr Kind<Cgroup> cgroup_table{.part = part_cgroups,
                                    .key = "cgroups",
                                    .name = "cgroup",
                                    .added = "made",
                                    .removed = "removed",
                                    .meaning = "control groups of all hierarchies",
                                    .records = &State::cgroups,
                                    .fields = cgroup_fields};

}  // namespace

const Kind<Cgroup>& kind(const Cgroup*) { return cgroup_table; }

}  // namespace vmsight
