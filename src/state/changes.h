// What changed between two states of the same guest.
#pragma once

#include <tuple>
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

/// Of each kind of record. Values that change all the time (times, counters, positions) are no
/// changes, nor are log records that the ring dropped: the tables of records.h say what is one.
class Changes {
 public:
  template <typename Record>
  std::vector<Change<Record>>& of() {
    return std::get<std::vector<Change<Record>>>(all_);
  }
  template <typename Record>
  const std::vector<Change<Record>>& of() const {
    return std::get<std::vector<Change<Record>>>(all_);
  }
  bool empty() const;

 private:
  template <typename... Records>
  using Lists = std::tuple<std::vector<Change<Records>>...>;
  Lists<CpuInfo, NetDevice, Module, Process, Thread, OpenFile, MemoryMap, Socket, Mount, LogRecord,
        Cgroup>
      all_;
};

/// Compares the parts given (as enum Part).
Changes compare_states(const State& before, const State& after, unsigned parts);

/// Whether `after` can be compared with `before`: it read as much as that did. A view in which
/// something tore that was whole before would show things as gone that are only unread.
bool is_comparable(const State& before, const State& after, unsigned parts);

}  // namespace vmsight
