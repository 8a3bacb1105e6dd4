#include "render/sockets_text.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "render/escape.h"

namespace vmsight {
namespace {

bool is_inet(const Socket& socket) { return socket.family == "inet" || socket.family == "inet6"; }

/// Of an IPv6 socket that takes IPv4 too, "*" stands for any address of either.
std::string inet_address(const Socket& socket, std::string_view address) {
  if (address == "::") return socket.v6only.value_or(false) ? "[::]" : "*";
  return address.find(':') == std::string_view::npos ? std::string(address)
                                                     : fmt::format("[{}]", address);
}

/// Names of /etc/iproute2/nl_protos, and of Ethernet types as iproute2 knows them.
constexpr std::pair<std::uint32_t, std::string_view> netlink_protocols[] = {
    {0, "rtnl"},       {1, "unused"},     {2, "usersock"},    {3, "fw"},        {4, "tcpdiag"},
    {5, "nflog"},      {6, "xfrm"},       {7, "selinux"},     {8, "iscsi"},     {9, "audit"},
    {10, "fiblookup"}, {11, "connector"}, {12, "nft"},        {13, "ip6fw"},    {14, "dec-rt"},
    {15, "uevent"},    {16, "genl"},      {18, "scsi-trans"}, {19, "ecryptfs"}, {20, "rdma"},
    {21, "crypto"}};
constexpr std::pair<std::uint32_t, std::string_view> packet_protocols[] = {
    {0x0003, "*"},        {0x0800, "ip"},      {0x0806, "arp"},     {0x8035, "rarp"},
    {0x8100, "802.1Q"},   {0x86dd, "ipv6"},    {0x8847, "mpls_uc"}, {0x8848, "mpls_mc"},
    {0x8863, "ppp_disc"}, {0x8864, "ppp_ses"}, {0x888e, "pae"},     {0x88a8, "802.1ad"},
    {0x88cc, "LLDP"},     {0x88f7, "1588"},    {0x0001, "802_3"},   {0x0004, "802_2"}};

constexpr std::uint32_t all_packets = 3;  // ETH_P_ALL

template <std::size_t N>
std::string protocol_text(const std::pair<std::uint32_t, std::string_view> (&names)[N],
                          std::uint32_t number, std::string unknown) {
  for (const auto& [known, name] : names) {
    if (known == number) return std::string(name);
  }
  return unknown;
}

/// Where numbers are asked for, only what takes all packets has a name.
std::string packet_text(const Socket& socket, bool numeric) {
  const std::uint32_t number = socket.protocol_number;
  const std::string device = socket.ifindex == 0     ? "*"
                             : socket.device.empty() ? fmt::format("if{}", socket.ifindex)
                                                     : std::string(socket.device);
  const std::string unknown = fmt::format("[{}]", number);
  const bool named = !numeric || number == all_packets;
  return fmt::format("{}:{}", named ? protocol_text(packet_protocols, number, unknown) : unknown,
                     device);
}

/// The column Netid of `ss`.
std::string netid(const Socket& socket) {
  if (socket.family == "unix") {
    if (socket.type == "stream") return "u_str";
    if (socket.type == "dgram") return "u_dgr";
    if (socket.type == "seqpacket") return "u_seq";
    return "unix";
  }
  if (socket.family == "netlink") return "nl";
  if (socket.family == "vsock") return socket.type == "dgram" ? "v_dgr" : "v_str";
  if (socket.family == "packet") return socket.type == "dgram" ? "p_dgr" : "p_raw";
  return std::string(socket.protocol);
}

/// The owners of one socket, by its inode; a socket without an inode stands alone.
struct Row {
  const Socket* socket;
  std::vector<const Socket*> owners;
};

std::vector<Row> group(const std::vector<Socket>& sockets) {
  std::vector<Row> rows;
  std::unordered_map<std::uint64_t, std::size_t> by_inode;
  for (const Socket& socket : sockets) {
    std::size_t at = rows.size();
    if (socket.inode != 0) at = by_inode.emplace(socket.inode, at).first->second;
    if (at == rows.size()) rows.push_back({&socket, {}});
    if (socket.pid) rows[at].owners.push_back(&socket);
  }
  return rows;
}

std::string owners_text(const Row& row,
                        const std::unordered_map<std::int32_t, std::string_view>& names) {
  std::vector<std::string> users;
  for (const Socket* owner : row.owners) {
    const auto name = names.find(*owner->pid);
    users.push_back(fmt::format("(\"{}\",pid={},fd={})",
                                name == names.end() ? std::string_view("?") : name->second,
                                *owner->pid, owner->fd.value_or(-1)));
  }
  return users.empty() ? "" : fmt::format("users:({})", fmt::join(users, ","));
}

std::string extended_text(const Socket& socket) {
  std::string text = socket.uid && *socket.uid != 0 ? fmt::format("uid:{} ", *socket.uid) : "";
  text += fmt::format("ino:{}", socket.inode);
  if (socket.v6only) text += fmt::format(" v6only:{:d}", *socket.v6only);
  const bool both_ways = is_inet(socket) || socket.family == "unix";
  if (both_ways && socket.shutdown) {
    text += fmt::format(" {}-{}", (*socket.shutdown & 1) != 0 ? '-' : '<',
                        (*socket.shutdown & 2) != 0 ? '-' : '>');
  }
  return text;
}

std::string memory_text(const Socket& socket) {
  if (!socket.memory) return "";
  const Socket::Memory& m = *socket.memory;
  return fmt::format("skmem:(r{},rb{},t{},tb{},f{},w{},o{},bl{},d{})", m.receive, m.receive_buffer,
                     m.transmit, m.send_buffer, m.forward, m.write_queued, m.options, m.backlog,
                     m.drops);
}

using ProcessNames = std::unordered_map<std::int32_t, std::string_view>;

/// "rtnl:systemd/1", or with numbers only "0:1": a port is a PID as a rule. 0 is the kernel's own.
std::string netlink_text(const Socket& socket, const ProcessNames& names, bool numeric) {
  const std::uint32_t number = socket.protocol_number, port = socket.local_port;
  const std::string protocol =
      numeric ? std::to_string(number)
              : protocol_text(netlink_protocols, number, fmt::format("{}", number));
  std::string owner = std::to_string(port);
  if (!numeric && port == 0) owner = "kernel";
  const auto name = names.find(static_cast<std::int32_t>(port));
  if (!numeric && port != 0 && name != names.end())
    owner = fmt::format("{}/{}", name->second, port);
  return fmt::format("{}:{}", protocol, owner);
}

std::string local_text(const Socket& socket, const ProcessNames& names, bool numeric) {
  if (socket.family == "netlink") return netlink_text(socket, names, numeric);
  if (socket.family == "packet") return packet_text(socket, numeric);
  return endpoint(socket, Side::local);
}

std::string peer_text(const Socket& socket) {
  if (socket.family != "unix") return endpoint(socket, Side::remote);
  return fmt::format("* {}", socket.peer_inode);
}

/// What follows the addresses, in the order of ss.
std::string more_text(const Row& row, const ProcessNames& names, const SsFormat& format) {
  std::vector<std::string> parts;
  if (format.processes) parts.push_back(owners_text(row, names));
  if (format.extended) parts.push_back(extended_text(*row.socket));
  if (format.memory) parts.push_back(memory_text(*row.socket));
  std::erase(parts, std::string());
  return fmt::format("{}", fmt::join(parts, " "));
}

}  // namespace

std::string endpoint(const Socket& socket, Side side) {
  const std::string_view address = side == Side::local ? socket.local : socket.remote;
  const std::uint32_t port = side == Side::local ? socket.local_port : socket.remote_port;
  if (is_inet(socket)) {
    const std::string number = port == 0 ? "*" : std::to_string(port);
    const std::string device = side == Side::remote || socket.ifindex == 0 ? ""
                               : socket.device.empty() ? fmt::format("%if{}", socket.ifindex)
                                                       : fmt::format("%{}", socket.device);
    return inet_address(socket, address) + device + ":" + number;
  }
  if (socket.family == "packet") return side == Side::local ? packet_text(socket, false) : "*";
  if (socket.family == "unix") {
    const std::string path = address.empty() ? "*" : std::string(address);
    return side == Side::local ? fmt::format("{} {}", path, socket.inode) : path;
  }
  const std::string name = address.empty() ? std::string(socket.protocol) : std::string(address);
  if (side == Side::remote) return "*";
  return port == 0 ? name : fmt::format("{}:{}", name, port);
}

std::string ss_state(std::string_view state) {
  if (state == "ESTABLISHED") return "ESTAB";
  if (state == "CLOSE") return "UNCONN";
  if (state == "FIN_WAIT1") return "FIN-WAIT-1";
  if (state == "FIN_WAIT2") return "FIN-WAIT-2";
  std::string text(state);
  std::replace(text.begin(), text.end(), '_', '-');
  return text;
}

void print_socket_summary(Output& out, const State& state) {
  struct Transport {
    std::size_t ipv4 = 0, ipv6 = 0;
    std::size_t total() const { return ipv4 + ipv6; }
  };
  Transport raw, udp, tcp;
  std::map<std::string, Transport> rarer;  // mptcp, sctp ...
  std::map<std::string, std::size_t> others, tcp_states;
  const std::vector<Row> rows = group(state.sockets);
  for (const Row& row : rows) {
    const Socket& socket = *row.socket;
    if (!is_inet(socket)) {
      ++others[for_terminal(socket.family)];
      continue;
    }
    if (socket.protocol == "tcp") ++tcp_states[ss_state(socket.state)];
    const bool is_udp = socket.protocol == "udp" || socket.protocol == "udplite";
    Transport& transport = socket.protocol == "tcp" ? tcp
                           : is_udp                 ? udp
                           : socket.type == "raw"   ? raw
                                                    : rarer[for_terminal(socket.protocol)];
    ++(socket.family == "inet" ? transport.ipv4 : transport.ipv6);
  }
  out.print("Total: {}\n", rows.size());
  out.print("TCP:   {} (estab {}, listen {}, closed {}, timewait {})\n\n", tcp.total(),
            tcp_states["ESTAB"], tcp_states["LISTEN"], tcp_states["UNCONN"],
            tcp_states["TIME-WAIT"]);
  Table table(
      {{"Transport"}, {"Total", Align::right}, {"IP", Align::right}, {"IPv6", Align::right}});
  const auto line = [&](std::string_view name, const Transport& transport) {
    table.row({name, std::to_string(transport.total()), std::to_string(transport.ipv4),
               std::to_string(transport.ipv6)});
  };
  line("RAW", raw);
  line("UDP", udp);
  line("TCP", tcp);
  Transport inet{.ipv4 = raw.ipv4 + udp.ipv4 + tcp.ipv4, .ipv6 = raw.ipv6 + udp.ipv6 + tcp.ipv6};
  for (const auto& [protocol, transport] : rarer) {
    line(protocol, transport);
    inet.ipv4 += transport.ipv4;
    inet.ipv6 += transport.ipv6;
  }
  line("INET", inet);
  for (const auto& [family, count] : others) table.row({family, std::to_string(count), "-", "-"});
  table.print(out, {});
}

void print_sockets(Output& out, const State& state, const SsFormat& format) {
  const bool more = format.extended || format.processes || format.memory;
  std::vector<Column> columns;
  const auto column = [&](bool shown, const char* name) {
    if (shown) columns.push_back({name});
  };
  column(format.netid, "Netid");
  column(format.state, "State");
  column(format.queues, "Recv-Q");
  column(format.queues, "Send-Q");
  column(true, "Local Address:Port");
  column(true, "Peer Address:Port");
  column(format.netns, "Netns");
  column(more, "Process");
  ProcessNames names;
  for (const Process& process : state.processes) names.emplace(process.pid, process.comm);
  Table table(std::move(columns));
  for (const Row& row : group(state.sockets)) {
    const Socket& socket = *row.socket;
    if (format.netid) table.cell(netid(socket));
    if (format.state) table.cell(ss_state(socket.state));
    if (format.queues) {
      table.row({std::to_string(socket.recv_queue), std::to_string(socket.send_queue)});
    }
    table.row({local_text(socket, names, format.numeric), peer_text(socket)});
    if (format.netns) table.cell(std::to_string(socket.netns));
    if (more) table.cell(more_text(row, names, format));
  }
  table.print(out, format.table);
}

}  // namespace vmsight
