// What changed between two states of the same guest.
#pragma once

#include <vector>

#include "vmsight/state.h"

namespace vmsight {

/// `before` null: it is new. `after` null: it is gone. Both: one of its values changed. They point
/// into the two states.
template <typename Record>
struct Change {
  const Record* before = nullptr;
  const Record* after = nullptr;
};

/// Values that change all the time (times, counters, positions) are no changes, nor are log
/// records that the ring dropped.
struct Changes {
  std::vector<Change<Process>> processes;      // the same: PID and start time
  std::vector<Change<OpenFile>> open_files;    // ... PID, descriptor, what it refers to
  std::vector<Change<MemoryMap>> memory_maps;  // ... PID, addresses, permissions, path
  std::vector<Change<Socket>> sockets;         // ... inode; addresses if it has none
  std::vector<Change<Module>> modules;         // ... name and base
  std::vector<Change<NetDevice>> net_devices;  // ... network namespace and index
  std::vector<Change<Mount>> mounts;           // ... mount namespace and id
  std::vector<Change<CpuInfo>> cpus;
  std::vector<Change<LogRecord>> kernel_log;  // new ones only

  bool empty() const;
};

/// Compares the parts given (as enum Part).
Changes compare_states(const State& before, const State& after, unsigned parts);

/// Whether `after` can be compared with `before`: it read as much as that did. A view in which
/// something tore that was whole before would show things as gone that are only unread.
bool is_comparable(const State& before, const State& after, unsigned parts);

}  // namespace vmsight
