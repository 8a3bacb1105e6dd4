// Control groups, v1 and v2: the tree of each hierarchy with its limits and usage, and in which
// groups each process is, in the words of /proc/PID/cgroup.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "state/context.h"
#include "state/flat_map.h"
#include "state/members.h"
#include "state/process_context.h"

namespace vmsight {

class CgroupsReader {
 public:
  static Result<CgroupsReader> resolve(Kernel& kernel);
  /// The groups (part_cgroups), and `cgroups` of the processes that the state has by now.
  void read(Context& context, const Shared& shared) const;

 private:
  /// What a group can be controlled by; `css` is where its state lies in the controller's own.
  enum Controller : unsigned { memory, pids, cpu, controllers };
  static constexpr std::size_t max_controllers = 32;

  struct Hierarchy {
    GuestVirt root;  // struct cgroup_root
    std::uint32_t number = 0;
    bool unified = false;
    std::uint64_t mask = 0;       // of controllers
    std::string_view name;        // "" but for named ones
    std::string_view list_names;  // "cpu,cpuacct", "name=systemd": the second field
  };
  struct Group {
    std::size_t parent = 0;             // in the list of groups
    std::optional<std::size_t> record;  // in the state; none: it is being removed, or unreadable
    std::uint64_t cpu_ns = 0, told_parent_ns = 0;
    bool has_cpu_time = false;
  };
  /// What came of reading the lines of a process; of all but the first it has none.
  enum class Outcome : std::uint8_t { read, unreadable, moved };
  struct View {
    const Shared& shared;
    std::vector<Hierarchy> hierarchies;  // in the order of /proc/PID/cgroup
    std::vector<Group> groups;           // of the hierarchy that is read
    FlatMap<std::string_view> paths;     // of struct cgroup
    FlatMap<std::size_t> lines, names;   // of struct css_set, of controllers: in all_lists
    std::vector<std::vector<std::string_view>> all_lists;
  };

  void resolve_controllers(Kernel& kernel);
  void resolve_usage(Kernel& kernel);

  bool read_hierarchies(Context& context, View& view) const;
  bool read_hierarchy(Context& context, const Hierarchy& hierarchy, View& view) const;
  void read_group(Context& context, const Hierarchy& hierarchy, GuestVirt cgroup, View& view) const;
  std::uint64_t controllers_of(Reader& reader, const Hierarchy& hierarchy, GuestVirt cgroup,
                               bool is_root) const;
  void read_controls(Context& context, const Hierarchy& hierarchy, GuestVirt cgroup,
                     Cgroup& into) const;
  void read_cpu_time(Context& context, GuestVirt cgroup, Group& group) const;
  static void add_up_cpu_time(State& state, std::vector<Group>& groups);
  std::vector<std::string_view> names_of(Context& context, std::uint64_t mask, bool unified,
                                         View& view) const;
  GuestVirt state_of(Reader& reader, GuestVirt cgroup, Controller controller) const;
  std::string_view path_of(Context& context, GuestVirt cgroup, View& view) const;
  bool read_processes(Context& context, View& view) const;
  Outcome read_lines(Context& context, Process& process, Proofs& proofs, View& view) const;
  static bool tell_outcomes(State& state, const std::vector<Outcome>& outcomes);
  std::vector<std::string_view> lines_of(Context& context, const Process& process, Proofs& proofs,
                                         View& view) const;
  std::vector<std::string_view> lines_of_set(Context& context, GuestVirt css_set, bool exiting,
                                             View& view) const;
  bool is_another(Reader& reader, const Process& process) const;
  bool is_online(Reader& reader, GuestVirt cgroup) const;

  GuestVirt roots_, unified_root_, unified_visible_, inhibited_, implicit_, threaded_, subsystems_;
  Offset root_list_ = 0, root_cgroup_ = 0, root_number_ = 0, root_name_ = 0;
  Member root_mask_, subtree_control_, self_flags_;
  Offset node_ = 0, node_parent_ = 0, node_name_ = 0, node_id_ = 0;
  Offset self_ = 0, children_ = 0, sibling_ = 0, subsys_ = 0, group_root_ = 0;
  Offset css_flags_ = 0, css_parent_ = 0;
  Offset subsystem_name_ = 0, subsystem_legacy_name_ = 0;
  Offset domain_ = 0;
  Offset task_set_ = 0, task_pid_ = 0, task_start_ = 0, set_links_ = 0, link_group_ = 0,
         link_node_ = 0;
  std::uint64_t online_ = 0, visible_ = 0;
  std::size_t subsystem_count_ = 0;
  std::uint64_t min_weight_ = 0;

  std::array<std::size_t, controllers> ids_{};  // max_controllers: the kernel has none
  std::array<Offset, controllers> css_{};
  Offset memory_usage_ = 0, memory_min_ = 0, memory_low_ = 0, memory_high_ = 0, memory_max_ = 0;
  Offset swap_usage_ = absent, swap_max_ = absent;
  Offset pids_usage_ = 0, pids_max_ = 0;
  Offset shares_ = 0, quota_ = absent, period_ = absent;
  Offset usage_ = absent, usage_told_ = absent;  // of a cgroup
  Offset usage_per_cpu_ = absent, cpu_usage_ = 0, cpu_usage_told_ = 0;
};

}  // namespace vmsight
