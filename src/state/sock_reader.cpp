#include "state/sock_reader.h"

#include <algorithm>

#include "state/socket_names.h"

namespace vmsight {

Result<SockReader> SockReader::resolve(Kernel& kernel) {
  Members members(kernel);
  SockReader self;
  self.resolve_common(members);
  self.resolve_sock(members);
  self.resolve_families(members);
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

void SockReader::resolve_common(Members& members) {
  family_ = members.offset("sock_common", "skc_family");
  state_ = members.offset("sock_common", "skc_state");
  hash_ = members.offset("sock_common", "skc_hash");
  net_ = members.offset("sock_common", "skc_net");
  node_ = members.offset("sock_common", "skc_node");  // a union with skc_nulls_node
  prot_ = members.offset("sock_common", "skc_prot");
  refcnt_ = members.offset("sock_common", "skc_refcnt");
  daddr_ = members.offset("sock_common", "skc_daddr");
  rcv_saddr_ = members.offset("sock_common", "skc_rcv_saddr");
  dport_ = members.offset("sock_common", "skc_dport");
  num_ = members.offset("sock_common", "skc_num");
  listener_ = members.offset("sock_common", "skc_listener");
  bound_ = members.offset("sock_common", "skc_bound_dev_if");
  v6only_ = members.member("sock_common", "skc_ipv6only");
  v6_daddr_ = members.optional_offset("sock_common", "skc_v6_daddr");
  v6_rcv_saddr_ = members.optional_offset("sock_common", "skc_v6_rcv_saddr");
}

void SockReader::resolve_sock(Members& members) {
  type_ = members.member("sock", "sk_type");
  protocol_ = members.member("sock", "sk_protocol");
  socket_ = members.offset("sock", "sk_socket");
  uid_ = members.offset("sock", "sk_uid");
  rmem_ = members.offset("sock", "sk_backlog.rmem_alloc");
  wmem_ = members.offset("sock", "sk_wmem_alloc");
  backlog_ = members.offset("sock", "sk_ack_backlog");
  max_backlog_ = members.member("sock", "sk_max_ack_backlog");
  receive_queue_ = members.offset("sock", "sk_receive_queue");
  receive_length_ = members.offset("sock", "sk_receive_queue.qlen");
  shutdown_ = members.member("sock", "sk_shutdown");
  rcvbuf_ = members.offset("sock", "sk_rcvbuf");
  sndbuf_ = members.offset("sock", "sk_sndbuf");
  forward_ = members.offset("sock", "sk_forward_alloc");
  queued_ = members.offset("sock", "sk_wmem_queued");
  optmem_ = members.offset("sock", "sk_omem_alloc");
  backlog_bytes_ = members.offset("sock", "sk_backlog.len");
  drops_ = members.find("sock", "sk_drops");
  drop_counters_ = members.find("sock", "sk_drop_counters");
  ino_ = members.optional_offset("sock", "sk_ino");
  sock_size_ = members.size("sock");
  sk_ = members.offset("socket", "sk");
  inode_ = members.offset("socket_alloc", "vfs_inode") - members.offset("socket_alloc", "socket");
  i_ino_ = members.offset("inode", "i_ino");
  i_uid_ = members.offset("inode", "i_uid");
  proto_name_ = members.offset("proto", "name");
}

void SockReader::resolve_families(Members& members) {
  substate_ = members.offset("inet_timewait_sock", "tw_substate");
  rcv_nxt_ = members.offset("tcp_sock", "rcv_nxt");
  copied_seq_ = members.offset("tcp_sock", "copied_seq");
  write_seq_ = members.offset("tcp_sock", "write_seq");
  snd_una_ = members.offset("tcp_sock", "snd_una");
  forward_deficit_ = members.optional_offset("udp_sock", "forward_deficit");
  unix_addr_ = members.offset("unix_sock", "addr");
  unix_peer_ = members.offset("unix_sock", "peer");
  inq_length_ = members.optional_offset("unix_sock", "inq_len");
  unix_length_ = members.offset("unix_address", "len");
  unix_name_ = members.offset("unix_address", "name");
  skb_length_ = members.offset("sk_buff", "len");
  skb_control_ = members.offset("sk_buff", "cb");
  skb_consumed_ = members.offset("unix_skb_parms", "consumed");
  portid_ = members.offset("netlink_sock", "portid");
  dst_portid_ = members.offset("netlink_sock", "dst_portid");
  groups_ = members.offset("netlink_sock", "groups");
  group_count_ = members.offset("netlink_sock", "ngroups");
  hook_type_ = members.offset("packet_type", "type");
  hook_device_ = members.offset("packet_type", "dev");
  hook_owner_ = members.offset("packet_type", "af_packet_priv");
  device_index_ = members.member("net_device", "ifindex");
}

bool SockReader::read(Context& context, GuestVirt sock, Socket& into) const {
  Reader& reader = context.reader;
  const unsigned family = reader.u16(sock + family_);
  const unsigned state = reader.u8(sock + state_);
  if (family == 0 || reader.u32(sock + refcnt_) == 0) return false;  // freed, or being made
  into.family = socket_family_name(family);
  into.local = into.remote = into.device = "";
  into.ifindex = reader.u32(sock + bound_);
  if (family == af_inet6) into.v6only = reader.value(sock, v6only_) != 0;
  const bool inet = family == af_inet || family == af_inet6;
  if (inet && (state == tcp_time_wait || state == tcp_new_syn_recv)) {
    read_small(context, sock, family, into);
  } else {
    read_sock(context, sock, family, into);
  }
  return true;
}

void SockReader::read_sock(Context& context, GuestVirt sock, unsigned family, Socket& into) const {
  Reader& reader = context.reader;
  into.type = socket_type_name(static_cast<unsigned>(reader.value(sock, type_)));
  into.state = plain_state_name(reader.u8(sock + state_));
  into.recv_queue = reader.u32(sock + rmem_);
  into.send_queue = std::max(reader.u32(sock + wmem_), 1U) - 1;  // a sock holds one reference
  into.protocol_number = static_cast<std::uint32_t>(reader.value(sock, protocol_));
  into.shutdown = static_cast<unsigned>(reader.value(sock, shutdown_));
  read_owner(reader, sock, into);
  read_memory(reader, sock, into);
  switch (family) {
    case af_inet:
    case af_inet6:
      return read_inet(context, sock, family, into);
    case af_unix:
      return read_unix(context, sock, into);
    case af_netlink:
      return read_netlink(context, sock, into);
    case af_packet:
      return read_packet(context, sock, into);
    case af_vsock:
      return read_vsock(context, sock, into);
    default:
      break;
  }
  into.protocol = into.family.empty() ? protocol_name(context, sock) : into.family;
  if (into.family.empty()) into.family = into.protocol;
}

/// What /proc/net shows: kernels that keep the inode's number in the sock take the user from
/// there too; others from the inode, if there is one.
void SockReader::read_owner(Reader& reader, GuestVirt sock, Socket& into) const {
  into.inode = inode(reader, sock);
  if (ino_) {
    into.uid = reader.u32(sock + uid_);
    return;
  }
  const GuestVirt socket = reader.pointer(sock + socket_);
  into.uid = socket == GuestVirt() ? 0 : reader.u32(socket + inode_ + i_uid_);
}

std::uint64_t SockReader::inode(Reader& reader, GuestVirt sock) const {
  if (ino_) return reader.u64(sock + *ino_);
  const GuestVirt socket = reader.pointer(sock + socket_);
  return socket == GuestVirt() ? 0 : reader.u64(socket + inode_ + i_ino_);
}

/// As sk_get_meminfo() of net/core/sock.c.
void SockReader::read_memory(Reader& reader, GuestVirt sock, Socket& into) const {
  Socket::Memory memory{.receive = reader.u32(sock + rmem_),
                        .receive_buffer = reader.u32(sock + rcvbuf_),
                        .transmit = std::max(reader.u32(sock + wmem_), 1U) - 1,
                        .send_buffer = reader.u32(sock + sndbuf_),
                        .forward = reader.u32(sock + forward_),
                        .write_queued = reader.u32(sock + queued_),
                        .options = reader.u32(sock + optmem_),
                        .backlog = reader.u32(sock + backlog_bytes_)};
  if (drops_ != absent) memory.drops = reader.u32(sock + drops_);
  const GuestVirt counters =
      drop_counters_ != absent ? reader.pointer(sock + drop_counters_) : GuestVirt();
  if (counters != GuestVirt()) {  // one of each half of the NUMA nodes, on cache lines of their own
    memory.drops = reader.u32(counters) + reader.u32(counters + 64);
  }
  into.memory = memory;
}

/// The kernel's own name of a protocol that has none here, in lower case.
std::string_view SockReader::protocol_name(Context& context, GuestVirt sock) const {
  const std::span<char> room = context.arena().allocate(32);
  const GuestVirt proto = context.reader.pointer(sock + prot_);
  const std::size_t size = context.reader.c_string(proto + proto_name_, room).size();
  for (char& letter : room.first(size)) {
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  }
  return context.arena().shrink(room, size);
}

}  // namespace vmsight
