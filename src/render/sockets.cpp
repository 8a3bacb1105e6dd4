#include "render/sockets.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "render/escape.h"

namespace vmsight {
namespace {

bool is_inet(const Socket& socket) { return socket.family == "inet" || socket.family == "inet6"; }

bool is_any(std::string_view address) {
  return address.empty() || address == "0.0.0.0" || address == "::";
}

std::string inet_address(const Socket& socket, std::string_view address) {
  if (is_any(address)) return socket.family == "inet" && !address.empty() ? "0.0.0.0" : "[::]";
  return address.find(':') == std::string_view::npos ? std::string(address)
                                                     : fmt::format("[{}]", address);
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
  std::string text = socket.uid ? fmt::format("uid:{} ", *socket.uid) : "";
  return text + fmt::format("ino:{}", socket.inode);
}

std::string peer_text(const Socket& socket) {
  if (socket.family != "unix") return endpoint(socket, Side::remote);
  return fmt::format("* {}", socket.peer_inode);
}

}  // namespace

std::string endpoint(const Socket& socket, Side side) {
  const std::string_view address = side == Side::local ? socket.local : socket.remote;
  const std::uint32_t port = side == Side::local ? socket.local_port : socket.remote_port;
  if (is_inet(socket)) {
    const std::string number = port == 0 ? "*" : std::to_string(port);
    return inet_address(socket, address) + ":" + number;
  }
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
  std::vector<Column> columns;
  if (format.netid) columns.push_back({"Netid"});
  for (const char* name :
       {"State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port"}) {
    columns.push_back({name});
  }
  if (format.netns) columns.push_back({"Netns"});
  if (format.extended) columns.push_back({"Extended"});
  if (format.processes) columns.push_back({"Process"});
  std::unordered_map<std::int32_t, std::string_view> names;
  for (const Process& process : state.processes) names.emplace(process.pid, process.comm);
  Table table(std::move(columns));
  for (const Row& row : group(state.sockets)) {
    const Socket& socket = *row.socket;
    if (format.netid) table.cell(netid(socket));
    table.row({ss_state(socket.state), std::to_string(socket.recv_queue),
               std::to_string(socket.send_queue), endpoint(socket, Side::local),
               peer_text(socket)});
    if (format.netns) table.cell(std::to_string(socket.netns));
    if (format.extended) table.cell(extended_text(socket));
    if (format.processes) table.cell(owners_text(row, names));
  }
  table.print(out, format.table);
}

}  // namespace vmsight
