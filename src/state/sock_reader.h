// Reading one socket: from a struct sock, or one of the two smaller structures that stand in the
// TCP hash table for a connection that is not yet, or no longer, a whole socket.
//
//   sock_common           family, state, addresses, namespace, links: what the three share
//   sock                  = sock_common + owner, queues
//   inet_timewait_sock    = sock_common + the state it waits in
//   request_sock          = sock_common + the listener it belongs to
//
// skc_state is looked at first: of the smaller ones nothing behind sock_common is a sock's.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "state/context.h"
#include "state/members.h"

namespace vmsight {

class SockReader {
 public:
  static Result<SockReader> resolve(Kernel& kernel);

  /// Everything but pid, fd and netns. The caller looks for faults in the reader. False if what
  /// is there is no socket (any more).
  bool read(Context& context, GuestVirt sock, Socket& into) const;

  GuestVirt net(Reader& reader, GuestVirt sock) const { return reader.pointer(sock + net_); }
  std::uint32_t hash(Reader& reader, GuestVirt sock) const { return reader.u32(sock + hash_); }
  /// Where a sock is linked into its hash table.
  std::uint32_t node() const { return node_; }
  /// The sock of a struct socket; null if it was closed.
  GuestVirt sock(Reader& reader, GuestVirt socket) const { return reader.pointer(socket + sk_); }

 private:
  void resolve_common(Members& members);
  void resolve_sock(Members& members);
  void resolve_families(Members& members);

  // sock_reader.cpp: what all sockets share
  void read_sock(Context& context, GuestVirt sock, unsigned family, Socket& into) const;
  void read_owner(Reader& reader, GuestVirt sock, Socket& into) const;
  std::uint64_t inode(Reader& reader, GuestVirt sock) const;
  std::string_view protocol_name(Context& context, GuestVirt sock) const;
  // sock_inet.cpp
  void read_inet(Context& context, GuestVirt sock, unsigned family, Socket& into) const;
  void read_addresses(Context& context, GuestVirt sock, unsigned family, Socket& into) const;
  void read_tcp_queues(Reader& reader, GuestVirt sock, unsigned state, Socket& into) const;
  void read_small(Context& context, GuestVirt sock, unsigned family, Socket& into) const;
  // sock_families.cpp: unix, netlink, vsock and the others
  void read_unix(Context& context, GuestVirt sock, Socket& into) const;
  void read_unix_queues(Context& context, GuestVirt sock, unsigned state, Socket& into) const;
  std::string_view read_unix_name(Context& context, GuestVirt sock) const;
  std::uint64_t unread_bytes(Context& context, GuestVirt sock) const;
  void read_netlink(Context& context, GuestVirt sock, Socket& into) const;
  void read_vsock(Context& context, GuestVirt sock, Socket& into) const;
  void read_packet(Context& context, GuestVirt sock, Socket& into) const;
  std::optional<std::uint32_t> find_packet_hook(Context& context, GuestVirt sock) const;
  void read_memory(Reader& reader, GuestVirt sock, Socket& into) const;

  // sock_common
  std::uint32_t family_ = 0, state_ = 0, hash_ = 0, net_ = 0, node_ = 0, prot_ = 0, refcnt_ = 0;
  std::uint32_t daddr_ = 0, rcv_saddr_ = 0, dport_ = 0, num_ = 0, listener_ = 0;
  std::optional<std::uint32_t> v6_daddr_, v6_rcv_saddr_;
  // sock
  Member type_, protocol_, max_backlog_;
  std::uint32_t socket_ = 0, uid_ = 0, rmem_ = 0, wmem_ = 0, backlog_ = 0, receive_queue_ = 0,
                receive_length_ = 0, sock_size_ = 0;
  std::optional<std::uint32_t> ino_;  // newer kernels keep the inode's number in the sock
  // socket, its inode, struct proto
  std::uint32_t sk_ = 0, inode_ = 0, i_ino_ = 0, i_uid_ = 0, proto_name_ = 0;
  // tcp_sock, inet_timewait_sock, udp_sock
  std::uint32_t substate_ = 0, rcv_nxt_ = 0, copied_seq_ = 0, write_seq_ = 0, snd_una_ = 0;
  std::optional<std::uint32_t> forward_deficit_;
  // unix_sock, unix_address, sk_buff, netlink_sock
  std::uint32_t unix_addr_ = 0, unix_peer_ = 0, unix_length_ = 0, unix_name_ = 0;
  std::uint32_t skb_length_ = 0, skb_control_ = 0, skb_consumed_ = 0;
  std::optional<std::uint32_t> inq_length_;
  std::uint32_t portid_ = 0, dst_portid_ = 0, groups_ = 0, group_count_ = 0;
  // what it is bound to, and what it may use
  Member v6only_, shutdown_, device_index_;
  std::uint32_t bound_ = 0, rcvbuf_ = 0, sndbuf_ = 0, forward_ = 0, queued_ = 0, optmem_ = 0,
                backlog_bytes_ = 0;
  Offset drops_ = absent, drop_counters_ = absent;  // newer kernels count some elsewhere
  // packet_sock
  std::uint32_t hook_type_ = 0, hook_device_ = 0, hook_owner_ = 0;
};

}  // namespace vmsight
