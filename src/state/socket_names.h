// Numbers of sockets as words. All are views of static strings.
#pragma once

#include <cstdint>
#include <string_view>

namespace vmsight {

// Numbers of the kernel's interface to user space that readers branch on.
inline constexpr unsigned af_unix = 1, af_inet = 2, af_inet6 = 10, af_netlink = 16, af_packet = 17,
                          af_vsock = 40;
inline constexpr unsigned sock_stream = 1, sock_dgram = 2, sock_raw = 3, sock_seqpacket = 5;
inline constexpr unsigned ipproto_tcp = 6, ipproto_udp = 17;
// include/net/tcp_states.h; other families use the same numbers for their sk_state.
inline constexpr unsigned tcp_established = 1, tcp_syn_recv = 3, tcp_time_wait = 6, tcp_close = 7,
                          tcp_listen = 10, tcp_new_syn_recv = 12;

/// "inet", "inet6", "unix" ...; "" for a number without a name here.
std::string_view socket_family_name(unsigned family);
/// "stream", "dgram" ...; "" for a number that is no type.
std::string_view socket_type_name(unsigned type);
/// "tcp", "udp" ... of an internet socket: raw sockets are "raw" whatever they carry.
std::string_view inet_protocol_name(unsigned type, unsigned protocol);
/// "ESTABLISHED" ... as the kernel calls them; "UNKNOWN" for a number that is no state.
std::string_view tcp_state_name(unsigned state);
/// States of sockets without connections of their own: "ESTABLISHED", "LISTEN", else "UNCONN".
std::string_view plain_state_name(unsigned state);

}  // namespace vmsight
