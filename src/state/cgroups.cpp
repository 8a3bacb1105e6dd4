#include "state/cgroups.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "state/lists.h"
#include "state/members.h"
#include "state/process_context.h"
#include "state/retry.h"

namespace vmsight {
namespace {

/// A count that moves all the time.
std::uint64_t moving(Reader& reader, GuestVirt at) {
  const Unrecorded scope(reader);
  return reader.u64(at);
}

constexpr std::size_t max_hierarchies = 64, max_groups = 1u << 16, max_links = 64;
constexpr std::size_t max_depth = 1024, max_text = 4096, max_name = 256;
constexpr std::uint32_t task_exiting = 0x4;                        // PF_EXITING
constexpr std::uint64_t no_page_limit = ~0ULL >> 1 >> page_shift;  // PAGE_COUNTER_MAX
constexpr std::uint64_t no_pid_limit = 4u << 20;  // PID_MAX_LIMIT; PIDS_MAX is one more
constexpr std::uint64_t no_quota = ~0ULL;         // RUNTIME_INF
constexpr unsigned shares_shift = 10;             // SCHED_FIXEDPOINT_SHIFT
constexpr std::uint64_t default_shares = 1024, default_weight = 100, max_weight = 10'000;

/// A protection of all memory is written "max", too, and is no number of bytes.
std::optional<std::uint64_t> bytes_or_none(std::uint64_t pages) {
  if (pages >= no_page_limit) return std::nullopt;
  return pages << page_shift;
}

/// Counters that were not read at one moment do not go backwards.
std::uint64_t more_than(std::uint64_t told, std::uint64_t now) {
  return now > told ? now - told : 0;
}

}  // namespace

Result<CgroupsReader> CgroupsReader::resolve(Kernel& kernel) {
  Members members(kernel);
  CgroupsReader self;
  // Neither: a kernel without control groups.
  if (members.find_symbol("cgrp_dfl_root") == GuestVirt()) return self;
  self.roots_ = members.symbol("cgroup_roots");
  self.unified_root_ = members.symbol("cgrp_dfl_root");
  self.unified_visible_ = members.find_symbol("cgrp_dfl_visible");
  self.inhibited_ = members.find_symbol("cgrp_dfl_inhibit_ss_mask");
  self.implicit_ = members.find_symbol("cgrp_dfl_implicit_ss_mask");
  self.threaded_ = members.find_symbol("cgrp_dfl_threaded_ss_mask");
  self.subsystems_ = members.symbol("cgroup_subsys");
  self.root_list_ = members.offset("cgroup_root", "root_list");
  self.root_cgroup_ = members.offset("cgroup_root", "cgrp");
  self.root_number_ = members.offset("cgroup_root", "hierarchy_id");
  self.root_name_ = members.offset("cgroup_root", "name");
  self.root_mask_ = members.member("cgroup_root", "subsys_mask");
  self.node_ = members.offset("cgroup", "kn");
  self.node_parent_ = members.offset("kernfs_node", {"parent", "__parent"});
  self.node_name_ = members.offset("kernfs_node", "name");
  self.node_id_ = members.offset("kernfs_node", "id");
  self.self_ = members.offset("cgroup", "self");
  self.self_flags_ = members.member("cgroup_subsys_state", "flags");
  self.css_flags_ = self.self_flags_.offset;
  self.children_ = members.offset("cgroup_subsys_state", "children");
  self.sibling_ = members.offset("cgroup_subsys_state", "sibling");
  self.css_parent_ = members.offset("cgroup_subsys_state", "parent");
  self.subtree_control_ = members.member("cgroup", "subtree_control");
  self.subsys_ = members.offset("cgroup", "subsys");
  self.domain_ = members.offset("cgroup", "dom_cgrp");
  self.group_root_ = members.offset("cgroup", "root");
  self.subsystem_name_ = members.offset("cgroup_subsys", "name");
  self.subsystem_legacy_name_ = members.offset("cgroup_subsys", "legacy_name");
  self.task_set_ = members.offset("task_struct", "cgroups");
  self.task_pid_ = members.offset("task_struct", "pid");
  self.task_start_ = members.offset("task_struct", "start_boottime");
  self.set_links_ = members.offset("css_set", "cgrp_links");
  self.link_group_ = members.offset("cgrp_cset_link", "cgrp");
  self.link_node_ = members.offset("cgrp_cset_link", "cgrp_link");
  const auto online = kernel.enumerator("CSS_ONLINE"), visible = kernel.enumerator("CSS_VISIBLE");
  const auto count = kernel.enumerator("CGROUP_SUBSYS_COUNT");
  VMSIGHT_TRY_VOID(members.check());
  if (!online || !visible || !count || *count < 0) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "cgroups: the kernel's types do not tell CSS_ONLINE"};
  }
  self.online_ = static_cast<std::uint64_t>(*online);
  self.visible_ = static_cast<std::uint64_t>(*visible);
  self.subsystem_count_ = std::min(static_cast<std::size_t>(*count), max_controllers);
  self.resolve_controllers(kernel);
  self.resolve_usage(kernel);
  return self;
}

/// A kernel may be built without any of them.
void CgroupsReader::resolve_controllers(Kernel& kernel) {
  constexpr struct {
    std::string_view id, type;
  } names[] = {{"memory_cgrp_id", "mem_cgroup"},
               {"pids_cgrp_id", "pids_cgroup"},
               {"cpu_cgrp_id", "task_group"}};
  Members members(kernel);
  for (unsigned i = 0; i < controllers; ++i) {
    const auto id = kernel.enumerator(names[i].id);
    const auto css = members.find(names[i].type, "css");
    const bool known = id && *id >= 0 && css != absent;
    ids_[i] = known ? static_cast<std::size_t>(*id) : max_controllers;
    css_[i] = css;
  }
  const auto inside = [&](std::string_view type, std::string_view member, std::string_view of,
                          std::string_view part) {
    const Offset outer = members.find(type, member), inner = members.find(of, part);
    return outer == absent || inner == absent ? absent : outer + inner;
  };
  const auto counter = [&](std::string_view part) {
    return inside("mem_cgroup", "memory", "page_counter", part);
  };
  memory_usage_ = counter("usage");
  memory_min_ = counter("min");
  memory_low_ = counter("low");
  memory_high_ = counter("high");
  memory_max_ = counter("max");
  swap_usage_ = inside("mem_cgroup", "swap", "page_counter", "usage");
  swap_max_ = inside("mem_cgroup", "swap", "page_counter", "max");
  pids_usage_ = members.find("pids_cgroup", "counter");
  pids_max_ = members.find("pids_cgroup", "limit");
  shares_ = members.find("task_group", "shares");
  // An idle group weighs 0; kernels with sched_ext write 1 (sched_weight_to_cgroup()).
  min_weight_ = kernel.member("task_struct", "scx") ? 1 : 0;
  quota_ = inside("task_group", "cfs_bandwidth", "cfs_bandwidth", "quota");
  period_ = inside("task_group", "cfs_bandwidth", "cfs_bandwidth", "period");
  if (memory_usage_ == absent || memory_max_ == absent) ids_[memory] = max_controllers;
  if (pids_usage_ == absent || pids_max_ == absent) ids_[pids] = max_controllers;
  if (shares_ == absent) ids_[cpu] = max_controllers;
}

/// Each CPU counts for itself what its tasks used, and reports it upwards when somebody asks.
void CgroupsReader::resolve_usage(Kernel& kernel) {
  Members members(kernel);
  const Offset used = members.find("task_cputime", "sum_exec_runtime");
  const Offset time = members.find("cgroup_base_stat", "cputime");
  const Offset now = members.find("cgroup", "bstat"), told = members.find("cgroup", "last_bstat");
  const Offset per_cpu = members.find("cgroup", {"rstat_cpu", "rstat_base_cpu"});
  const bool is_new = kernel.member("cgroup", "rstat_base_cpu").has_value();
  const std::string_view type = is_new ? "cgroup_rstat_base_cpu" : "cgroup_rstat_cpu";
  const Offset cpu_now = members.find(type, "bstat"), cpu_told = members.find(type, "last_bstat");
  for (const Offset each : {used, time, now, told, per_cpu, cpu_now, cpu_told}) {
    if (each == absent) return;
  }
  usage_ = now + time + used;
  usage_told_ = told + time + used;
  usage_per_cpu_ = per_cpu;
  cpu_usage_ = cpu_now + time + used;
  cpu_usage_told_ = cpu_told + time + used;
}

void CgroupsReader::read(Context& context, const Shared& shared) const {
  if (roots_ == GuestVirt()) return;  // a kernel without control groups
  const bool trees = (context.options.parts & part_cgroups) != 0;
  read_whole(context, context.state.cgroups, [&] {
    View view{shared};
    bool whole = read_hierarchies(context, view);
    for (const Hierarchy& hierarchy : view.hierarchies) {
      if (trees && !read_hierarchy(context, hierarchy, view)) whole = false;
    }
    return read_processes(context, view) && whole;
  });
}

/// In the order of /proc/PID/cgroup.
bool CgroupsReader::read_hierarchies(Context& context, View& view) const {
  Reader& reader = context.reader;
  const bool whole = walk_list(reader, roots_, [&](GuestVirt node) {
    if (view.hierarchies.size() == max_hierarchies) return reader.set_fault(node);
    Hierarchy found;
    found.root = node - root_list_;
    found.unified = found.root == unified_root_;
    // Nobody has mounted it yet.
    const bool hidden =
        found.unified && unified_visible_ != GuestVirt() && reader.u8(unified_visible_) == 0;
    found.number = reader.u32(found.root + root_number_);
    found.mask = reader.value(found.root, root_mask_);
    const auto name = context.arena().allocate(max_name);
    found.name =
        context.arena().shrink(name, reader.c_string(found.root + root_name_, name).size());
    std::string list;
    if (!found.unified) {
      for (const std::string_view controller : names_of(context, found.mask, false, view)) {
        list += fmt::format("{}{}", list.empty() ? "" : ",", controller);
      }
      if (!found.name.empty())
        list += fmt::format("{}name={}", list.empty() ? "" : ",", found.name);
    }
    found.list_names = context.arena().copy(list);
    if (!hidden) view.hierarchies.push_back(found);
  });
  if (!whole) {
    context.state.problem("cgroups",
                          fmt::format("the list of hierarchies is broken at {}", *reader.fault()));
  }
  reader.clear_fault();
  return whole;
}

/// Most groups have the same.
std::vector<std::string_view> CgroupsReader::names_of(Context& context, std::uint64_t mask,
                                                      bool unified, View& view) const {
  const GuestVirt key(mask), kind(unified ? 1 : 0);
  if (const std::size_t* known = view.names.find(key, kind)) return view.all_lists[*known];
  Reader& reader = context.reader;
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < subsystem_count_; ++i) {
    if ((mask >> i & 1) == 0) continue;
    const GuestVirt subsystem = reader.pointer(subsystems_ + 8 * i);
    const Offset name = unified ? subsystem_name_ : subsystem_legacy_name_;
    const auto into = context.arena().allocate(max_name);
    names.push_back(context.arena().shrink(
        into, reader.c_string(reader.pointer(subsystem + name), into).size()));
  }
  if (!reader.ok()) return names;
  view.names.insert(key, kind, view.all_lists.size());
  view.all_lists.push_back(names);
  return names;
}

/// Parents before their children, in the order in which they were made. False if some of it was not
/// readable; the rest is there.
bool CgroupsReader::read_hierarchy(Context& context, const Hierarchy& hierarchy, View& view) const {
  Reader& reader = context.reader;
  std::size_t unreadable = 0;
  std::optional<GuestVirt> first;
  const auto note_fault = [&] {
    if (reader.ok()) return;
    if (unreadable++ == 0) first = reader.fault();
    reader.clear_fault();
  };
  view.groups.clear();
  std::vector<std::pair<GuestVirt, std::size_t>> waiting{{hierarchy.root + root_cgroup_, 0}};
  while (!waiting.empty()) {
    if (view.groups.size() + waiting.size() >= max_groups || view.shared.out_of_time() ||
        is_full(context.state.cgroups, context.arena())) {
      context.state.problem(
          "cgroups",
          fmt::format("hierarchy {}: there are too many to show them all", hierarchy.number));
      break;
    }
    const auto [cgroup, parent] = waiting.back();
    waiting.pop_back();
    const std::size_t number = view.groups.size();
    view.groups.push_back({.parent = parent});
    read_group(context, hierarchy, cgroup, view);
    note_fault();
    if (hierarchy.unified) read_cpu_time(context, cgroup, view.groups.back());
    note_fault();
    const std::size_t before = waiting.size();
    walk_list(reader, cgroup + self_ + children_, [&](GuestVirt node) {
      if (waiting.size() >= max_groups) return reader.set_fault(node);
      waiting.emplace_back(node - sibling_ - self_, number);
    });
    note_fault();
    std::reverse(waiting.begin() + static_cast<std::ptrdiff_t>(before), waiting.end());
  }
  if (hierarchy.unified) add_up_cpu_time(context.state, view.groups);
  if (unreadable == 0) return true;
  context.state.problem("cgroups", fmt::format("hierarchy {}: {} not readable, the first at {}",
                                               hierarchy.number, unreadable, *first));
  return false;
}

/// One that is being removed has no record: it has no directory any more.
void CgroupsReader::read_group(Context& context, const Hierarchy& hierarchy, GuestVirt cgroup,
                               View& view) const {
  Reader& reader = context.reader;
  const bool is_root = view.groups.size() == 1;
  if (!is_online(reader, cgroup) || !reader.ok()) return;
  Cgroup record;
  record.hierarchy = hierarchy.number;
  record.name = hierarchy.name;
  record.path = path_of(context, cgroup, view);
  record.id = reader.u64(reader.pointer(cgroup + node_) + node_id_);
  record.controllers = names_of(context, controllers_of(reader, hierarchy, cgroup, is_root),
                                hierarchy.unified, view);
  if (!is_root) read_controls(context, hierarchy, cgroup, record);
  if (!reader.ok()) return;
  view.groups.back().record = context.state.cgroups.size();
  context.state.cgroups.push_back(std::move(record));
}

/// cgroup_control() of kernel/cgroup/cgroup.c: a bit for each controller.
std::uint64_t CgroupsReader::controllers_of(Reader& reader, const Hierarchy& hierarchy,
                                            GuestVirt cgroup, bool is_root) const {
  const auto mask_at = [&](GuestVirt at) {
    return at == GuestVirt() ? 0 : reader.value(at, {.offset = 0, .size = subtree_control_.size});
  };
  if (!hierarchy.unified) return hierarchy.mask;
  if (is_root) return hierarchy.mask & ~(mask_at(inhibited_) | mask_at(implicit_));
  // The parent's state as a group, and with it the parent.
  const GuestVirt parent = reader.pointer(cgroup + self_ + css_parent_) - self_;
  std::uint64_t mask = reader.value(parent, subtree_control_);
  // A threaded group has only what can be given to threads.
  if (reader.pointer(cgroup + domain_) != cgroup) mask &= mask_at(threaded_);
  return mask;
}

/// What it has used itself, and what it has told its parent of it.
void CgroupsReader::read_cpu_time(Context& context, GuestVirt cgroup, Group& group) const {
  if (usage_ == absent) return;
  Reader& reader = context.reader;
  const Unrecorded moving(reader);
  group.told_parent_ns = reader.u64(cgroup + usage_told_);
  group.cpu_ns = reader.u64(cgroup + usage_);
  const GuestVirt area = reader.pointer(cgroup + usage_per_cpu_);
  for (std::size_t i = 0; i < context.kernel.per_cpu_offsets().size() && reader.ok(); ++i) {
    const GuestVirt own = context.kernel.per_cpu(area, i);
    const std::uint64_t told = reader.u64(own + cpu_usage_told_);
    group.cpu_ns += more_than(told, reader.u64(own + cpu_usage_));
  }
  group.has_cpu_time = reader.ok();
}

/// What a group has not told its parent yet is the parent's, too.
void CgroupsReader::add_up_cpu_time(State& state, std::vector<Group>& groups) {
  for (std::size_t i = groups.size(); i-- > 1;) {
    const Group& group = groups[i];
    Group& parent = groups[group.parent];
    parent.has_cpu_time = parent.has_cpu_time && group.has_cpu_time;
    parent.cpu_ns += more_than(group.told_parent_ns, group.cpu_ns);
    if (group.record && group.has_cpu_time)
      state.cgroups[*group.record].cpu_usage_ns = group.cpu_ns;
  }
}

void CgroupsReader::read_controls(Context& context, const Hierarchy& hierarchy, GuestVirt cgroup,
                                  Cgroup& into) const {
  Reader& reader = context.reader;
  if (const GuestVirt state = state_of(reader, cgroup, memory); state != GuestVirt()) {
    into.memory_bytes = moving(reader, state + memory_usage_) << page_shift;
    into.memory_max = bytes_or_none(reader.u64(state + memory_max_));
    if (hierarchy.unified) {
      if (memory_min_ != absent) into.memory_min = bytes_or_none(reader.u64(state + memory_min_));
      if (memory_low_ != absent) into.memory_low = bytes_or_none(reader.u64(state + memory_low_));
      if (memory_high_ != absent)
        into.memory_high = bytes_or_none(reader.u64(state + memory_high_));
      if (swap_usage_ != absent)
        into.swap_bytes = moving(reader, state + swap_usage_) << page_shift;
      if (swap_max_ != absent) into.swap_max = bytes_or_none(reader.u64(state + swap_max_));
    }
  }
  if (const GuestVirt state = state_of(reader, cgroup, pids); state != GuestVirt()) {
    into.pids = reader.u64(state + pids_usage_);
    const std::uint64_t limit = reader.u64(state + pids_max_);
    if (limit <= no_pid_limit) into.pids_max = limit;
  }
  if (const GuestVirt state = state_of(reader, cgroup, cpu); state != GuestVirt()) {
    const std::uint64_t shares = reader.u64(state + shares_) >> shares_shift;
    if (hierarchy.unified) {
      const std::uint64_t weight = (shares * default_weight + default_shares / 2) / default_shares;
      into.cpu_weight = std::clamp<std::uint64_t>(weight, min_weight_, max_weight);
    } else {
      into.cpu_shares = shares;
    }
    if (quota_ != absent && period_ != absent) {
      const std::uint64_t quota = reader.u64(state + quota_);
      if (quota != no_quota) into.cpu_quota_ns = quota;
      into.cpu_period_ns = reader.u64(state + period_);
    }
  }
}

/// What a controller keeps of the group; 0 if it does not control it.
GuestVirt CgroupsReader::state_of(Reader& reader, GuestVirt cgroup, Controller controller) const {
  const std::size_t id = ids_[controller];
  if (id >= subsystem_count_) return {};
  const GuestVirt css = reader.pointer(cgroup + subsys_ + 8 * id);
  if (css == GuestVirt() || (reader.u32(css + css_flags_) & visible_) == 0) return {};
  return css - css_[controller];
}

bool CgroupsReader::is_online(Reader& reader, GuestVirt cgroup) const {
  return (reader.value(cgroup + self_, self_flags_) & online_) != 0;
}

/// By the names of its directories.
std::string_view CgroupsReader::path_of(Context& context, GuestVirt cgroup, View& view) const {
  if (const std::string_view* known = view.paths.find(cgroup)) return *known;
  Reader& reader = context.reader;
  std::vector<std::string> names;
  GuestVirt node = reader.pointer(cgroup + node_);
  std::size_t size = 0;
  for (std::size_t depth = 0; reader.ok(); ++depth) {
    const GuestVirt parent = reader.pointer(node + node_parent_);
    if (parent == GuestVirt()) break;
    if (depth == max_depth || size > max_text) {
      reader.set_fault(node);
      break;
    }
    std::array<char, max_name> name{};
    names.emplace_back(reader.c_string(reader.pointer(node + node_name_), name));
    size += names.back().size() + 1;
    node = parent;
  }
  std::string path;
  for (auto name = names.rbegin(); name != names.rend(); ++name) path += "/" + *name;
  if (path.empty()) path = "/";
  const std::string_view kept = context.arena().copy(path);
  if (reader.ok()) view.paths.insert(cgroup, kept);
  return kept;
}

/// Proven at the end: a process that moved, or ended, meanwhile is read again, and has no lines if it
/// does not stand still. What came of the others stays. False if something was broken.
bool CgroupsReader::read_processes(Context& context, View& view) const {
  std::vector<Process>& processes = context.state.processes;
  std::vector<Outcome> outcomes(processes.size());
  std::vector<Proofs::Owner> left(processes.size());
  std::iota(left.begin(), left.end(), 0);
  Proofs proofs;
  const bool live = context.reader.memory().is_live();
  for (unsigned attempt = 1;; ++attempt) {
    proofs.begin(live);
    for (const Proofs::Owner i : left) {
      proofs.set_owner(i);
      outcomes[i] = read_lines(context, processes[i], proofs, view);
    }
    if (!live) break;
    if (auto changed = proofs.changed(context.reader.memory())) left = *std::move(changed);
    if (left.empty() || attempt >= context.options.attempts) break;
    view.lines.clear();  // a set that was let go of may be another's
    prepare_retry(context, attempt);
  }
  for (const Proofs::Owner i : left) {
    if (live && outcomes[i] == Outcome::read) outcomes[i] = Outcome::moved;
  }
  return tell_outcomes(context.state, outcomes);
}

/// Once. What cannot be read of a process that has ended is no fault of the guest's.
CgroupsReader::Outcome CgroupsReader::read_lines(Context& context, Process& process, Proofs& proofs,
                                                 View& view) const {
  Reader& reader = context.reader;
  reader.clear_fault();
  process.cgroups = lines_of(context, process, proofs, view);
  const bool readable = reader.ok();
  reader.clear_fault();
  const bool another = is_another(reader, process), known = reader.ok();
  reader.clear_fault();
  if (another && known) return Outcome::moved;
  return readable && known ? Outcome::read : Outcome::unreadable;
}

/// Those that were not read have no lines, and a problem says why. False if some were unreadable.
bool CgroupsReader::tell_outcomes(State& state, const std::vector<Outcome>& outcomes) {
  std::size_t unreadable = 0, moved = 0;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    if (outcomes[i] == Outcome::read) continue;
    ++(outcomes[i] == Outcome::moved ? moved : unreadable);
    state.processes[i].cgroups.clear();
  }
  const auto tell = [&](std::size_t count, std::string_view why) {
    if (count == 0) return;
    state.problem("processes.cgroups", fmt::format("of {} processes: {}", count, why));
  };
  tell(unreadable, "not readable");
  tell(moved, "they ended or moved meanwhile");
  return unreadable == 0;
}

/// Its task has ended since the process was read, and may be somebody else's now.
bool CgroupsReader::is_another(Reader& reader, const Process& process) const {
  return static_cast<std::int32_t>(reader.u32(process.task + task_pid_)) != process.pid ||
         reader.u64(process.task + task_start_) != process.start_time_ns;
}

std::vector<std::string_view> CgroupsReader::lines_of(Context& context, const Process& process,
                                                      Proofs& proofs, View& view) const {
  Reader& reader = context.reader;
  const GuestVirt task = process.task;
  if (view.shared.out_of_time() || is_full(context.state.processes, context.arena())) {
    reader.set_fault(task);
    return {};
  }
  proofs.expect(reader, task + task_pid_, reader.u32(task + task_pid_));
  proofs.expect(reader, task + task_start_, reader.u64(task + task_start_));
  const GuestVirt set = proofs.expect(reader, task + task_set_, reader.pointer(task + task_set_));
  // Those of v1 have let an exiting task go.
  const bool exiting = (process.flags & task_exiting) != 0;
  if (is_another(reader, process) || !reader.ok()) return {};
  if (set == GuestVirt()) {  // every task has one
    reader.set_fault(task + task_set_);
    return {};
  }
  const GuestVirt kind = GuestVirt(exiting ? 1 : 0);
  if (const std::size_t* known = view.lines.find(set, kind)) return view.all_lists[*known];
  auto lines = lines_of_set(context, set, exiting, view);
  if (!reader.ok()) return {};
  view.lines.insert(set, kind, view.all_lists.size());
  view.all_lists.push_back(lines);
  return lines;
}

/// proc_cgroup_show() of kernel/cgroup/cgroup.c.
std::vector<std::string_view> CgroupsReader::lines_of_set(Context& context, GuestVirt css_set,
                                                          bool exiting, View& view) const {
  Reader& reader = context.reader;
  std::vector<GuestVirt> groups;
  walk_list(reader, css_set + set_links_, [&](GuestVirt node) {
    if (groups.size() == max_links) return reader.set_fault(node);
    groups.push_back(reader.pointer(node - link_node_ + link_group_));
  });
  std::vector<std::string_view> lines;
  for (const Hierarchy& hierarchy : view.hierarchies) {
    const auto group = std::find_if(groups.begin(), groups.end(), [&](GuestVirt cgroup) {
      return reader.pointer(cgroup + group_root_) == hierarchy.root;
    });
    if (group == groups.end() || !reader.ok()) continue;
    const bool left = exiting && !hierarchy.unified;
    const std::string_view path = left ? "/" : path_of(context, *group, view);
    const std::string_view gone = left || is_online(reader, *group) ? "" : " (deleted)";
    lines.push_back(context.arena().copy(
        fmt::format("{}:{}:{}{}", hierarchy.number, hierarchy.list_names, path, gone)));
  }
  return lines;
}

}  // namespace vmsight
