#include "state/changes.h"

#include <algorithm>
#include <tuple>

namespace vmsight {
namespace {

// What makes a record the same one in both states.
auto key(const Process& p) { return std::tuple(p.pid, p.start_time_ns); }
auto key(const OpenFile& f) { return std::tuple(f.pid, f.tid, f.fd, f.inode, f.path); }
auto key(const MemoryMap& m) {
  return std::tuple(m.pid, m.start, m.end, std::string_view(m.perms), m.path);
}
auto key(const Module& m) { return std::tuple(m.name, m.base); }
auto key(const NetDevice& d) { return std::tuple(d.netns, d.ifindex); }
auto key(const Mount& m) { return std::tuple(m.mntns, m.id); }
auto key(const CpuInfo& c) { return std::tuple(c.cpu); }
auto key(const LogRecord& r) { return std::tuple(r.sequence); }
auto key(const Socket& s) {
  // A socket that is no file any more (TIME_WAIT) has no inode: its addresses tell it.
  const bool anonymous = s.inode == 0;
  const std::string_view none;
  return std::tuple(s.netns, s.inode, s.family, s.protocol, anonymous ? s.local : none,
                    anonymous ? s.local_port : 0, anonymous ? s.remote : none,
                    anonymous ? s.remote_port : 0);
}

// What may change in a record without making it another one.
auto values(const Process& p) {
  // A kworker is called after what it works on, which changes all the time.
  const std::string_view name = p.kernel_thread ? std::string_view() : p.comm;
  return std::tuple(name, std::tie(p.exe, p.cmdline, p.ppid, p.uid, p.gid, p.euid, p.egid, p.pidns,
                                   p.mntns, p.netns));
}
auto values(const OpenFile&) { return std::tuple<>(); }
auto values(const MemoryMap&) { return std::tuple<>(); }
auto values(const LogRecord&) { return std::tuple<>(); }
auto values(const Module& m) { return std::tie(m.state); }
auto values(const NetDevice& d) {
  return std::tie(d.name, d.hwaddr, d.flags, d.mtu, d.ipv4, d.ipv6);
}
auto values(const Mount& m) {
  return std::tie(m.source, m.target, m.options, m.super_options, m.propagation);
}
auto values(const CpuInfo& c) { return std::tie(c.online); }
auto values(const Socket& s) {
  return std::tie(s.state, s.local, s.local_port, s.remote, s.remote_port);
}

template <typename Record>
bool by_key(const Record* a, const Record* b) {
  return key(*a) < key(*b);
}

/// By key; a socket that several descriptors refer to counts once.
template <typename Record>
std::vector<const Record*> sorted(const std::vector<Record>& records) {
  std::vector<const Record*> list;
  list.reserve(records.size());
  for (const Record& record : records) list.push_back(&record);
  std::stable_sort(list.begin(), list.end(), by_key<Record>);
  const auto same = [](const Record* a, const Record* b) { return key(*a) == key(*b); };
  list.erase(std::unique(list.begin(), list.end(), same), list.end());
  return list;
}

template <typename Record>
void compare(const std::vector<Record>& before, const std::vector<Record>& after,
             std::vector<Change<Record>>& changes) {
  const auto old_ones = sorted(before), new_ones = sorted(after);
  auto o = old_ones.begin();
  auto n = new_ones.begin();
  while (o != old_ones.end() || n != new_ones.end()) {
    if (n == new_ones.end() || (o != old_ones.end() && by_key(*o, *n))) {
      changes.push_back({*o++, nullptr});
    } else if (o == old_ones.end() || by_key(*n, *o)) {
      changes.push_back({nullptr, *n++});
    } else {
      if (values(**o) != values(**n)) changes.push_back({*o, *n});
      ++o, ++n;
    }
  }
}

/// The part whose key in the document this is, or that a problem's `where` names.
unsigned part_of(std::string_view where) {
  constexpr std::pair<std::string_view, unsigned> names[] = {
      {"processes", part_processes},     {"open_files", part_open_files},
      {"memory_maps", part_memory_maps}, {"sockets", part_sockets},
      {"modules", part_modules},         {"net_devices", part_net_devices},
      {"mounts", part_mounts},           {"cpus", part_cpus},
      {"kernel_log", part_kernel_log},   {"os", part_os}};
  for (const auto& [name, part] : names) {
    if (where.starts_with(name)) return part;
  }
  return part_all;
}

std::size_t problems_of(const State& state, unsigned parts) {
  const auto counts = [&](const Problem& p) { return (part_of(p.where) & parts) != 0; };
  const auto& list = state.problems;
  return static_cast<std::size_t>(std::count_if(list.begin(), list.end(), counts));
}

}  // namespace

bool Changes::empty() const {
  return processes.empty() && open_files.empty() && memory_maps.empty() && sockets.empty() &&
         modules.empty() && net_devices.empty() && mounts.empty() && cpus.empty() &&
         kernel_log.empty();
}

Changes compare_states(const State& before, const State& after, unsigned parts) {
  Changes changes;
  const auto part = [&](unsigned flag, const auto& old_ones, const auto& new_ones, auto& into) {
    if ((parts & flag) != 0) compare(old_ones, new_ones, into);
  };
  part(part_processes, before.processes, after.processes, changes.processes);
  part(part_open_files, before.open_files, after.open_files, changes.open_files);
  part(part_memory_maps, before.memory_maps, after.memory_maps, changes.memory_maps);
  part(part_sockets, before.sockets, after.sockets, changes.sockets);
  part(part_modules, before.modules, after.modules, changes.modules);
  part(part_net_devices, before.net_devices, after.net_devices, changes.net_devices);
  part(part_mounts, before.mounts, after.mounts, changes.mounts);
  part(part_cpus, before.cpus, after.cpus, changes.cpus);
  part(part_kernel_log, before.kernel_log, after.kernel_log, changes.kernel_log);
  std::erase_if(changes.kernel_log, [](const auto& change) { return change.after == nullptr; });
  return changes;
}

bool is_comparable(const State& before, const State& after, unsigned parts) {
  return after.problems_left_out <= before.problems_left_out &&
         problems_of(after, parts) <= problems_of(before, parts);
}

}  // namespace vmsight
