// Sockets of other families: unix, netlink, vsock.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "state/sock_reader.h"
#include "state/socket_names.h"

namespace vmsight {
namespace {

constexpr std::size_t max_unix_path = 108;       // sun_path of struct sockaddr_un
constexpr std::uint32_t family_size = 2;         // what precedes it there
constexpr std::size_t max_packets = 1u << 12;    // of one queue that we add up
constexpr std::uint32_t max_packet_sock = 2048;  // what follows the sock of a packet_sock
constexpr std::uint32_t vsock_any = ~0U, vsock_address_size = 16;

}  // namespace

void SockReader::read_unix(Context& context, GuestVirt sock, Socket& into) const {
  Reader& reader = context.reader;
  into.protocol = "unix";
  into.local = read_unix_name(context, sock);
  const GuestVirt peer = reader.pointer(sock + unix_peer_);
  if (peer != GuestVirt()) into.peer_inode = inode(reader, peer);
  read_unix_queues(context, sock, reader.u8(sock + state_), into);
}

/// The name as /proc/net/unix writes it: a path without its final NUL, or "@name" with every NUL
/// of an abstract name as "@".
std::string_view SockReader::read_unix_name(Context& context, GuestVirt sock) const {
  Reader& reader = context.reader;
  const GuestVirt address = reader.pointer(sock + unix_addr_);
  if (address == GuestVirt()) return "";
  const std::size_t length = reader.u32(address + unix_length_);
  if (length <= family_size) return "";
  const std::span<char> name =
      context.arena().allocate(std::min(length - family_size, max_unix_path + 1));
  reader.copy(address + unix_name_ + family_size, std::as_writable_bytes(name));
  if (name[0] != 0) {
    const void* end = std::memchr(name.data(), 0, name.size());
    const std::size_t used =
        end == nullptr ? name.size() : static_cast<const char*>(end) - name.data();
    return context.arena().shrink(name, used);
  }
  std::replace(name.begin(), name.end(), '\0', '@');
  return {name.data(), name.size()};
}

void SockReader::read_unix_queues(Context& context, GuestVirt sock, unsigned state,
                                  Socket& into) const {
  Reader& reader = context.reader;
  if (state == tcp_listen) {
    into.recv_queue = reader.u32(sock + receive_length_);
    into.send_queue = reader.value(sock, max_backlog_);
  } else if (inq_length_ && reader.value(sock, type_) == sock_stream) {
    into.recv_queue = reader.u32(sock + *inq_length_);
  } else {
    into.recv_queue = unread_bytes(context, sock);
  }
}

/// The bytes that a read would find: all queued ones of a stream, the next packet otherwise.
/// A queue is a ring of sk_buff through the sock; their first word is `next`.
std::uint64_t SockReader::unread_bytes(Context& context, GuestVirt sock) const {
  Reader& reader = context.reader;
  const std::size_t queued = reader.u32(sock + receive_length_);
  const bool next_only = reader.value(sock, type_) == sock_dgram;
  const std::size_t packets = next_only ? std::min<std::size_t>(queued, 1) : queued;
  const GuestVirt head = sock + receive_queue_;
  GuestVirt packet = reader.pointer(head);
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < std::min(packets, max_packets) && packet != head && reader.ok();
       ++i) {
    const std::uint32_t length = reader.u32(packet + skb_length_);
    bytes += length - std::min(length, reader.u32(packet + skb_control_ + skb_consumed_));
    packet = reader.pointer(packet);
  }
  if (packets > max_packets)
    context.state.problem("sockets", "a receive queue is too long to add up");
  return bytes;
}

/// A netlink socket has no state that tools show, though the kernel knows connected ones.
void SockReader::read_netlink(Context& context, GuestVirt sock, Socket& into) const {
  into.protocol = into.family;
  into.state = plain_state_name(tcp_close);
  into.local_port = context.reader.u32(sock + portid_);
  into.remote_port = context.reader.u32(sock + dst_portid_);
  const GuestVirt groups = context.reader.pointer(sock + groups_);
  if (groups != GuestVirt() && context.reader.u32(sock + group_count_) != 0) {
    into.groups = context.reader.u32(groups);
  }
}

/// What it is bound to stands in its hook into the reception of packets, which is not described
/// by the types of every kernel but points back to the socket.
void SockReader::read_packet(Context& context, GuestVirt sock, Socket& into) const {
  Reader& reader = context.reader;
  into.protocol = into.family;
  const auto hook = find_packet_hook(context, sock);
  if (!hook) {
    return context.state.problem("sockets",
                                 fmt::format("packet: no protocol and device at {}", sock));
  }
  const GuestVirt at = sock + *hook;
  into.protocol_number = __builtin_bswap16(reader.u16(at + hook_type_));
  const GuestVirt device = reader.pointer(at + hook_device_);
  into.ifindex =
      device == GuestVirt() ? 0 : static_cast<unsigned>(reader.value(device, device_index_));
}

std::optional<std::uint32_t> SockReader::find_packet_hook(Context& context, GuestVirt sock) const {
  Reader& reader = context.reader;
  const auto belongs = [&](std::uint32_t hook) {
    return reader.pointer(sock + hook + hook_owner_) == sock;
  };
  for (const char* type : {"af_packet:packet_sock", "packet_sock"}) {
    const auto member = context.kernel.member(type, "prot_hook");
    if (member) return belongs(member->offset) ? std::optional(member->offset) : std::nullopt;
  }
  for (std::uint32_t hook = sock_size_; hook < sock_size_ + max_packet_sock; hook += 8) {
    if (belongs(hook)) return hook;
  }
  return std::nullopt;
}

/// Addresses of virtual machines: a context id (of the machine) and a port, in struct sockaddr_vm
/// of include/uapi/linux/vm_sockets.h. Modules of Linux 5.10 have no BTF; there and since, the
/// addresses follow the sock and one pointer.
void SockReader::read_vsock(Context& context, GuestVirt sock, Socket& into) const {
  Reader& reader = context.reader;
  Kernel& kernel = context.kernel;
  into.protocol = into.family;
  into.state = tcp_state_name(reader.u8(sock + state_));
  const auto member = kernel.member("vsock:vsock_sock", "local_addr");
  const GuestVirt local = sock + (member ? member->offset : sock_size_ + 8);
  const GuestVirt remote = local + vsock_address_size;
  if (reader.u16(local) != af_vsock || reader.u16(remote) != af_vsock) {
    into.local = into.remote = {};
    return context.state.problem("sockets", fmt::format("vsock: no addresses at {}", local));
  }
  const auto cid = [&](GuestVirt address) -> std::string_view {
    const std::uint32_t number = reader.u32(address + 8);
    return number == vsock_any ? "*" : context.arena().copy(fmt::format_int(number).c_str());
  };
  const auto port = [&](GuestVirt address) {
    const std::uint32_t number = reader.u32(address + 4);
    return number == vsock_any ? 0 : number;
  };
  into.local = cid(local);
  into.local_port = port(local);
  into.remote = cid(remote);
  into.remote_port = port(remote);
}

}  // namespace vmsight
