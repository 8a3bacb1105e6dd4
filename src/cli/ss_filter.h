// Which sockets `ss` shows: states by name or group, and expressions of addresses and ports.
//
//   expression = any of terms joined by "and" ("&&", "&", or nothing) and "or" ("||", "|")
//   term       = "not" term | "(" expression ")"
//              | ("src" | "dst") ["=" | "!="] [FAMILY:]ADDRESS[/BITS][:PORT]
//              | ("sport" | "dport") ["=" | "!=" | ">=" | "<=" | ">" | "<"] [FAMILY:][:]PORT
//              | "dev" ["=" | "!="] DEVICE
//
// "and" binds closer than "or", as for ss(8).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "vmsight/result.h"
#include "vmsight/state.h"

namespace vmsight {

/// Bits of states, by the numbers that the kernel gives those of TCP.
using SocketStates = std::uint32_t;
inline constexpr SocketStates state_established = 1 << 1, state_syn_recv = 1 << 3,
                              state_time_wait = 1 << 6, state_close = 1 << 7,
                              state_listen = 1 << 10, all_states = 0xffff;
/// What ss shows if nothing is asked for: those with a connection.
inline constexpr SocketStates connected_states =
    all_states & ~(state_listen | state_close | state_time_wait | state_syn_recv);

SocketStates state_bit(const Socket& socket);
/// "established", "time-wait", "connected", "bucket" ...; those that the kernel or this tool
/// calls otherwise are known too ("LISTEN", "FIN_WAIT1"). nullopt for what is no state.
std::optional<SocketStates> parse_states(std::string_view name);

using SocketFilter = std::function<bool(const Socket&)>;
/// A usage error that names what was not understood; an empty list lets everything pass.
Result<SocketFilter> parse_socket_filter(const std::vector<std::string>& words);

}  // namespace vmsight
