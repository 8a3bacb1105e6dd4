// What the parts that belong to one process are read with.
#pragma once

#include "base/clock.h"
#include "state/context.h"
#include "state/paths.h"
#include "state/proofs.h"

namespace vmsight {

/// Namespaces of one struct nsproxy, which many processes share.
struct NamespaceSet {
  GuestVirt mount, net, uts;  // their objects
  std::uint64_t mount_inode = 0, net_inode = 0, uts_inode = 0;
};

/// A mount namespace and the root directory of the first process met in it: /proc/PID/mountinfo
/// shows mounts from there.
struct MountNamespace {
  GuestVirt ns;
  std::uint64_t inode = 0;
  PathRef root;
};

/// Every loop over guest data is bounded, but a hostile guest can make many processes share what
/// is large. A view gives up on the rest after this; 10,000 honest processes need 0.2 s.
inline constexpr std::uint64_t max_view_ns = 30'000'000'000;

/// What one view has learnt about objects that processes share. Emptied, not freed, between views.
struct Shared {
  FlatMap<NamespaceSet> namespaces;  // by nsproxy
  std::vector<MountNamespace> mount_namespaces;
  std::vector<GuestVirt> threads;  // scratch: those of the process being read
  FlatMap<std::int32_t> tables;    // scratch: its descriptor tables, by the thread that has each
  std::size_t targets = 0;         // watched by epolls, of all processes
  std::size_t cmdline_bytes = 0;   // of all processes
  bool maps_in_change = false;     // the maps being read hold not together, and their lock says why
  Stopwatch watch;                 // since the view began

  bool out_of_time() const { return watch.elapsed_ns() > max_view_ns; }
  void clear() {
    namespaces.clear();
    mount_namespaces.clear();
    threads.clear();
    tables.clear();
    targets = 0;
    cmdline_bytes = 0;
    maps_in_change = false;
    watch = {};
  }
};

struct ProcessContext {
  Context& context;
  Paths& paths;
  Proofs& proofs;  // with the process as owner
  Shared& shared;
  unsigned parts;  // Part flags: those asked for, and what they depend on

  Reader& reader() { return context.reader; }
  State& state() { return context.state; }
  bool wants(unsigned part) const { return (parts & part) != 0; }
  bool out_of_time() const { return shared.out_of_time(); }
};

/// A hostile guest may let a few pages stand for millions of objects with long names. Beyond this
/// much, its records and the text of the whole state together, a part takes no more: so a state of
/// all parts stays below a gigabyte or so. The largest guests we know of need 100 MiB a part.
inline constexpr std::size_t max_state_bytes = std::size_t{256} << 20;

template <typename Record>
bool is_full(const std::vector<Record>& records, const Arena& arena) {
  return arena.bytes() + records.size() * sizeof(Record) >= max_state_bytes;
}

}  // namespace vmsight
