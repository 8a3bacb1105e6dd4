// Internet sockets: TCP, UDP, UDP-Lite, raw, ping and what else is spoken over IP.
#include <algorithm>

#include "state/net_address.h"
#include "state/sock_reader.h"
#include "state/socket_names.h"

namespace vmsight {
namespace {

std::uint32_t host_order(std::uint16_t port) { return __builtin_bswap16(port); }

}  // namespace

void SockReader::read_inet(Context& context, GuestVirt sock, unsigned family, Socket& into) const {
  Reader& reader = context.reader;
  const unsigned type = static_cast<unsigned>(reader.value(sock, type_));
  const unsigned protocol = static_cast<unsigned>(reader.value(sock, protocol_));
  const unsigned state = reader.u8(sock + state_);
  read_addresses(context, sock, family, into);
  into.protocol = inet_protocol_name(type, protocol);
  if (into.protocol.empty()) into.protocol = protocol_name(context, sock);
  if (type == sock_stream || type == sock_seqpacket) into.state = tcp_state_name(state);
  if (type == sock_stream && protocol == ipproto_tcp) read_tcp_queues(reader, sock, state, into);
  if (protocol == ipproto_udp && forward_deficit_) {
    // Memory of packets that were read already, not yet given back.
    into.recv_queue -=
        std::min<std::uint64_t>(into.recv_queue, reader.u32(sock + *forward_deficit_));
  }
}

void SockReader::read_addresses(Context& context, GuestVirt sock, unsigned family,
                                Socket& into) const {
  Reader& reader = context.reader;
  Arena& arena = context.arena();
  into.local_port = reader.u16(sock + num_);
  into.remote_port = host_order(reader.u16(sock + dport_));
  if (family == af_inet6 && v6_daddr_ && v6_rcv_saddr_) {
    into.local = format_address(arena, reader.get<Ipv6Bytes>(sock + *v6_rcv_saddr_));
    into.remote = format_address(arena, reader.get<Ipv6Bytes>(sock + *v6_daddr_));
  } else {
    into.local = format_address(arena, reader.get<Ipv4Bytes>(sock + rcv_saddr_));
    into.remote = format_address(arena, reader.get<Ipv4Bytes>(sock + daddr_));
  }
}

/// As `ss` shows them: of a listener the connections that wait, and how many may.
void SockReader::read_tcp_queues(Reader& reader, GuestVirt sock, unsigned state,
                                 Socket& into) const {
  if (state == tcp_listen) {
    into.recv_queue = reader.u32(sock + backlog_);
    into.send_queue = reader.value(sock, max_backlog_);
    return;
  }
  const auto span = [&](std::uint32_t end, std::uint32_t start) -> std::uint64_t {
    const std::uint32_t bytes = reader.u32(sock + end) - reader.u32(sock + start);
    return bytes > INT32_MAX ? 0 : bytes;  // a FIN that was counted, not data
  };
  into.recv_queue = span(rcv_nxt_, copied_seq_);
  into.send_queue = span(write_seq_, snd_una_);
}

/// TIME_WAIT and requests for a connection, which only TCP keeps in its tables. A socket that
/// waits in FIN_WAIT2 is kept the same way, and shown with that state.
void SockReader::read_small(Context& context, GuestVirt sock, unsigned family, Socket& into) const {
  Reader& reader = context.reader;
  read_addresses(context, sock, family, into);
  into.protocol = "tcp";
  into.protocol_number = ipproto_tcp;
  into.type = "stream";
  into.uid = 0;
  if (reader.u8(sock + state_) == tcp_time_wait) {
    into.state = tcp_state_name(reader.u8(sock + substate_));
    return;
  }
  into.state = tcp_state_name(tcp_syn_recv);
  Socket listener;
  read_owner(reader, reader.pointer(sock + listener_), listener);
  into.uid = listener.uid;
}

}  // namespace vmsight
