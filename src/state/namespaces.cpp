#include "state/namespaces.h"

#include <algorithm>

namespace vmsight {

namespace {
constexpr std::uint32_t max_level = 32;  // MAX_PID_NS_LEVEL
}

Result<NamespacesReader> NamespacesReader::resolve(Kernel& kernel) {
  Members members(kernel);
  NamespacesReader namespaces;
  namespaces.at_ = {
      .mount = members.offset("nsproxy", "mnt_ns"),
      .net = members.offset("nsproxy", "net_ns"),
      .uts = members.offset("nsproxy", "uts_ns"),
      .mount_inode = members.offset("mnt_namespace", "ns.inum"),
      .net_inode = members.offset("net", "ns.inum"),
      .uts_inode = members.offset("uts_namespace", "ns.inum"),
      .level = members.offset("pid", "level"),
      .numbers = members.offset("pid", "numbers"),
      .number_nr = members.offset("upid", "nr"),
      .number_ns = members.offset("upid", "ns"),
      .pid_inode = members.offset("pid_namespace", "ns.inum"),
  };
  namespaces.number_size_ = members.size("upid");
  VMSIGHT_TRY_VOID(members.check());
  return namespaces;
}

void NamespacesReader::read(ProcessContext& process, GuestVirt nsproxy, PathRef root,
                            Process& record) const {
  if (nsproxy.raw() == 0) return;
  const NamespaceSet& set = read_set(process, nsproxy, root);
  if (!process.reader().ok()) return;
  record.mntns = set.mount_inode;
  record.netns = set.net_inode;
  record.utsns = set.uts_inode;
}

const NamespaceSet& NamespacesReader::read_set(ProcessContext& process, GuestVirt nsproxy,
                                               PathRef root) const {
  if (const auto* known = process.shared.namespaces.find(nsproxy)) return *known;
  Reader& reader = process.reader();
  NamespaceSet set{
      .mount = reader.pointer(nsproxy + at_.mount),
      .net = reader.pointer(nsproxy + at_.net),
      .uts = reader.pointer(nsproxy + at_.uts),
  };
  set.mount_inode = reader.u32(set.mount + at_.mount_inode);
  set.net_inode = reader.u32(set.net + at_.net_inode);
  set.uts_inode = reader.u32(set.uts + at_.uts_inode);
  if (reader.ok()) {
    auto& mounts = process.shared.mount_namespaces;
    const auto same = [&](const MountNamespace& other) { return other.ns == set.mount; };
    if (std::none_of(mounts.begin(), mounts.end(), same)) {
      mounts.push_back({set.mount, set.mount_inode, root});
      process.context.namespaces.mount.push_back(set.mount);
    }
    auto& nets = process.context.namespaces.net;
    if (std::find(nets.begin(), nets.end(), set.net) == nets.end()) nets.push_back(set.net);
  }
  return process.shared.namespaces.insert(nsproxy, set);
}

void NamespacesReader::read_pids(ProcessContext& process, GuestVirt pid, Process& record) const {
  Reader& reader = process.reader();
  const auto level = reader.u32(pid + at_.level);
  if (level > max_level) return reader.set_fault(pid);
  record.ns_pids.clear();
  GuestVirt innermost;
  for (std::uint32_t i = 0; i <= level; ++i) {
    const GuestVirt number = pid + at_.numbers + std::uint64_t{i} * number_size_;
    record.ns_pids.push_back(static_cast<std::int32_t>(reader.u32(number + at_.number_nr)));
    innermost = reader.pointer(number + at_.number_ns);
  }
  record.pidns = reader.u32(innermost + at_.pid_inode);
}

std::int32_t NamespacesReader::number(Reader& reader, GuestVirt pid) const {
  if (pid.raw() == 0) return 0;
  return static_cast<std::int32_t>(reader.u32(pid + at_.numbers + at_.number_nr));
}

}  // namespace vmsight
