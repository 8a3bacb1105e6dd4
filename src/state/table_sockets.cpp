#include "state/records.h"

namespace vmsight {
namespace {

/// A socket that is no file any more (TIME_WAIT) has no inode: its addresses tell it.
template <auto member>
int by_if_anonymous(const Socket& a, const Socket& b) {
  return a.inode != 0 || b.inode != 0 ? 0 : field_detail::order<member>(a, b);
}

template <auto member>
constexpr Field<Socket> socket_end(std::string_view name, std::string_view meaning) {
  auto made = changing<member>(name, "", meaning);
  made.order = by_if_anonymous<member>;
  return made;
}

constexpr Field<Socket::Memory> memory_fields[] = {
    field<&Socket::Memory::receive>("receive", "bytes", "received, waiting"),
    field<&Socket::Memory::receive_buffer>("receive_buffer", "bytes", "that may be"),
    field<&Socket::Memory::transmit>("transmit", "bytes", "on the way out"),
    field<&Socket::Memory::send_buffer>("send_buffer", "bytes", "that may be"),
    field<&Socket::Memory::forward>("forward", "bytes", "allotted ahead"),
    field<&Socket::Memory::write_queued>("write_queued", "bytes", "waiting to be sent"),
    field<&Socket::Memory::options>("options", "bytes", "of options"),
    field<&Socket::Memory::backlog>("backlog", "bytes", "waiting for the socket's lock"),
    field<&Socket::Memory::drops>("drops", "", "packets dropped"),
};

constexpr Field<Socket> socket_fields[] = {
    field<&Socket::pid>("pid", "", "process that has it open"),
    field<&Socket::fd>("fd", "", "its descriptor"),
    telling<&Socket::netns>("netns", "", "network namespace"),
    telling<&Socket::family>("family", "", "inet, inet6, unix, netlink, packet ..."),
    telling<&Socket::protocol>("protocol", "", "tcp, udp, icmp, raw, unix ..."),
    changing<&Socket::state>("state", "", "the kernel's name: ESTABLISHED, LISTEN, UNCONN ..."),
    socket_end<&Socket::local>("local", "address; of unix sockets the path"),
    socket_end<&Socket::local_port>("local_port", "port"),
    socket_end<&Socket::remote>("remote", "address of the other end"),
    socket_end<&Socket::remote_port>("remote_port", "its port"),
    telling<&Socket::inode>("inode", "", "number of the socket"),
    field<&Socket::type>("type", "", "stream, dgram, seqpacket, raw ..."),
    field<&Socket::recv_queue>("recv_queue", "bytes", "Recv-Q of ss"),
    field<&Socket::send_queue>("send_queue", "bytes", "Send-Q of ss"),
    field<&Socket::uid>("uid", "", "its user"),
    field<&Socket::peer_inode>("peer_inode", "", "of unix sockets"),
    field<&Socket::tid>("tid", "", "with pid and fd: the `tid` of the open file"),
    field<&Socket::protocol_number>("protocol_number", "",
                                    "IPPROTO_*, Ethernet type, netlink protocol"),
    field<&Socket::ifindex>("ifindex", "", "of the device it is bound to, else 0"),
    field<&Socket::device>("device", "", "its name"),
    field<&Socket::v6only>("v6only", "", "of inet6 sockets"),
    field<&Socket::shutdown>("shutdown", "", "1: reads are, 2: writes are shut down"),
    field<&Socket::groups>("groups", "", "netlink: the first 32 multicast groups"),
    field<&Socket::memory>("memory", "", "as `ss -m`"),
};
constexpr Kind<Socket> socket_table{.part = part_sockets,
                                    .key = "sockets",
                                    .name = "socket",
                                    .added = "opened",
                                    .removed = "closed",
                                    .meaning = "sockets of all network namespaces",
                                    .records = &State::sockets,
                                    .fields = socket_fields};

}  // namespace

const Kind<Socket>& kind(const Socket*) { return socket_table; }
std::span<const Field<Socket::Memory>> fields_of(const Socket::Memory&) { return memory_fields; }

}  // namespace vmsight
