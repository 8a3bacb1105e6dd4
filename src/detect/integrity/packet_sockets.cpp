// packet-sockets: who reads the network past the kernel's own protocols.
#include <algorithm>

#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"

namespace vmsight {
namespace {

std::string owner_of(const State& state, const Socket& socket) {
  if (!socket.pid) return "the kernel or no process";
  const auto process = std::ranges::find(state.processes, *socket.pid, &Process::pid);
  return process == state.processes.end()
             ? fmt::format("process {}", *socket.pid)
             : fmt::format("process {} ({})", *socket.pid, process->comm);
}

Result<void> check_packet_sockets(Look& look) {
  for (const Socket& socket : look.state->sockets) {
    ++look.looked_at;
    const bool packet = socket.family == "packet";
    const bool raw = socket.family.starts_with("inet") && socket.protocol == "raw";
    if (!packet && !raw) continue;
    std::string where;
    if (packet && !socket.device.empty()) where = fmt::format(" on {}", socket.device);
    look.find({.what = fmt::format("{} has a {} socket{}", owner_of(*look.state, socket),
                                   packet ? "packet" : "raw", where),
               .object = fmt::format("socket {}", socket.inode),
               .sources = {"sockets"},
               .sureness = Sureness::hint,
               .pid = socket.pid});
  }
  return {};
}

}  // namespace

extern const IntegrityCheck packet_sockets_check{
    .info = {.name = "packet-sockets",
             .what = "who has packet sockets and raw sockets",
             .family = "network"},
    .parts = part_sockets | part_processes | part_open_files,
    .run = check_packet_sockets,
};

}  // namespace vmsight
