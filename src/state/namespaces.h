// The namespaces of a process, and its numbers in each pid namespace.
#pragma once

#include "state/process_context.h"

namespace vmsight {

class NamespacesReader {
 public:
  static Result<NamespacesReader> resolve(Kernel& kernel);

  /// Mount, network and UTS namespace; `root` is the process's root directory. Nothing is set for
  /// a process that has left its namespaces (nsproxy 0: it is dying).
  void read(ProcessContext& process, GuestVirt nsproxy, PathRef root, Process& record) const;

  /// Pid namespace and numbers, from the struct pid of a task.
  void read_pids(ProcessContext& process, GuestVirt pid, Process& record) const;

  /// The number a struct pid has in the guest's first pid namespace; 0 for none.
  std::int32_t number(Reader& reader, GuestVirt pid) const;

 private:
  const NamespaceSet& read_set(ProcessContext& process, GuestVirt nsproxy, PathRef root) const;

  struct Offsets {
    Offset mount, net, uts;                    // of nsproxy
    Offset mount_inode, net_inode, uts_inode;  // of the namespaces
    Offset level, numbers, number_nr, number_ns, pid_inode;
  } at_{};
  std::uint32_t number_size_ = 0;
};

}  // namespace vmsight
