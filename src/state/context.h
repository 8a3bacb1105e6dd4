// What every part of the state is read with. One part = one file: `XxxReader::resolve` finds its
// members once an attach, `read` runs once a view.
#pragma once

#include <cstdint>
#include <vector>

#include "vmsight/reader.h"
#include "vmsight/state.h"

namespace vmsight {

/// An open file that is a socket, found by the open-files part, for the sockets part.
struct SocketFile {
  std::int32_t pid = 0, tid = 0, fd = 0;
  GuestVirt socket{};  // struct socket
  std::uint64_t inode = 0;
};

/// A namespace met while reading processes, so that parts below visit each once.
struct Namespaces {
  std::vector<GuestVirt> mount;  // struct mnt_namespace, distinct
  std::vector<GuestVirt> net;    // struct net, distinct
};

struct Context {
  Kernel& kernel;
  Reader& reader;
  const StateOptions& options;
  State& state;
  std::vector<SocketFile> socket_files;
  Namespaces namespaces;

  Arena& arena() { return state.arena; }
};

/// Bounds that end every loop over guest data (a guest may forge cycles and counts).
inline constexpr std::size_t max_list_entries = 1u << 22;

}  // namespace vmsight
