// Sockets as `ss` prints them.
#pragma once

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

enum class Side : std::uint8_t { local, remote };
/// "10.0.2.15:22", "127.0.0.1%lo:53", "[fe80::1]%eth0:22", "*:22" where an IPv6 socket takes
/// IPv4 too and "[::]:22" where not; a path or "*" for unix sockets; "arp:eth0" of packets.
std::string endpoint(const Socket& socket, Side side);

struct SsFormat {
  bool netid = true;       // the column that tells tcp from udp from unix
  bool processes = false;  // -p
  bool extended = false;   // -e: uid, inode, whether it is IPv6 only, what is shut down
  bool memory = false;     // -m
  bool numeric = false;    // -n: of netlink and packet sockets
  bool state = true, queues = true;
  bool netns = false;
  TableOptions table;
};

/// A row for each socket: records that differ only in their owner become one.
void print_sockets(Output& out, const State& state, const SsFormat& format);

/// How many there are of each transport and family, as `ss -s`.
void print_socket_summary(Output& out, const State& state);

/// The names of `ss` for the kernel's: "ESTAB", "TIME-WAIT".
std::string ss_state(std::string_view state);

}  // namespace vmsight
