// vmsight ss VM: sockets.
#include <fmt/ranges.h>

#include <array>
#include <set>

#include "cli/attach.h"
#include "cli/filters.h"
#include "cli/network_namespace.h"
#include "cli/ss_filter.h"
#include "render/sockets_text.h"
#include "state/user_space.h"

namespace vmsight {
namespace {

/// What -A calls the sockets, and which states ss shows of them if none is asked for.
struct SocketKind {
  std::string_view name, family;
  SocketStates states;
};
constexpr SocketKind socket_kinds[] = {
    {"tcp", "inet", connected_states},
    {"mptcp", "inet", connected_states},
    {"dccp", "inet", connected_states},
    {"sctp", "inet", connected_states},
    {"udp", "inet", state_established},
    {"raw", "inet", state_established},
    {"unix_dgram", "unix", state_close},
    {"unix_stream", "unix", connected_states},
    {"unix_seqpacket", "unix", connected_states},
    {"packet_raw", "packet", state_close},
    {"packet_dgram", "packet", state_close},
    {"netlink", "netlink", state_close},
    {"vsock_stream", "vsock", connected_states},
    {"vsock_dgram", "vsock", connected_states},
    {"tipc", "tipc", connected_states},
    {"xdp", "xdp", state_close},
};
/// Names of several kinds at once, and short ones.
constexpr std::pair<std::string_view, std::string_view> query_names[] = {
    {"u_dgr", "unix_dgram"},
    {"ud", "unix_dgram"},
    {"u_str", "unix_stream"},
    {"us", "unix_stream"},
    {"u_seq", "unix_seqpacket"},
    {"uq", "unix_seqpacket"},
    {"p_raw", "packet_raw"},
    {"pr", "packet_raw"},
    {"p_dgr", "packet_dgram"},
    {"pd", "packet_dgram"},
    {"u", "unix"},
    {"x", "unix"},
    {"p", "packet"},
    {"v_str", "vsock_stream"},
    {"v_dgr", "vsock_dgram"},
};

std::string kind_of(const Socket& socket) {
  if (socket.family == "inet" || socket.family == "inet6") {
    return socket.protocol == "udplite" ? "udp" : std::string(socket.protocol);
  }
  const bool by_type =
      socket.family == "unix" || socket.family == "packet" || socket.family == "vsock";
  return by_type ? fmt::format("{}_{}", socket.family, socket.type) : std::string(socket.family);
}

class Ss : public Verb {
 public:
  void declare(CLI::App& app) override {
    const auto flag = [&](const char* name, bool& value, const char* what, const char* group) {
      app.add_flag(name, value, what)->group(group);
    };
    app.add_option("EXPRESSION", words_,
                   "as ss(8): state STATE, exclude STATE, then src, dst ADDRESS, sport, dport "
                   "[=|!=|>|<|>=|<=] :PORT, dev DEVICE, joined by and, or, not, ( )")
        ->group("Arguments");
    flag("-t,--tcp", tcp_, "TCP", filter_group);
    flag("-u,--udp", udp_, "UDP", filter_group);
    flag("-w,--raw", raw_, "raw sockets", filter_group);
    flag("-x,--unix", unix_, "unix sockets", filter_group);
    flag("-0,--packet", packet_, "packet sockets", filter_group);
    flag("-S,--sctp", sctp_, "SCTP", filter_group);
    flag("-d,--dccp", dccp_, "DCCP", filter_group);
    flag("-M,--mptcp", mptcp_, "MPTCP", filter_group);
    flag("--vsock", vsock_, "vsock", filter_group);
    flag("-4,--ipv4", ipv4_, "IPv4 only", filter_group);
    flag("-6,--ipv6", ipv6_, "IPv6 only", filter_group);
    app.add_option("-f,--family", family_, "only this family")
        ->group(filter_group)
        ->type_name("inet|inet6|link|unix|netlink|vsock|tipc|xdp");
    app.add_option("-A,--query,--socket", queries_, "only these kinds")
        ->group(filter_group)
        ->type_name("all|inet|tcp|udp|raw|unix|packet|netlink|...")
        ->delimiter(',')
        ->allow_extra_args(false);
    flag("-l,--listening", listening_, "listening sockets only", filter_group);
    flag("-a,--all", all_, "listening sockets too", filter_group);
    app.add_option("--state", states_, "only sockets in these states, such as established,listen")
        ->group(filter_group)
        ->type_name("STATE,...")
        ->delimiter(',')
        ->allow_extra_args(false);
    app.add_option("--pid", pids_, "only sockets of these processes")
        ->group(filter_group)
        ->type_name("PID,...")
        ->delimiter(',')
        ->allow_extra_args(false);
    app.add_option("-N,--net,--netns", netns_, "only this network namespace")
        ->group(filter_group)
        ->type_name("INODE|NAME");
    flag("-p,--processes", format_.processes, "the processes that have the socket", format_group);
    flag("-e,--extended", format_.extended, "user ID, inode and more", format_group);
    flag("-m,--memory", format_.memory, "what it uses, and may use", format_group);
    flag("--show-netns", format_.netns, "the network namespace", format_group);
    flag("-s,--summary", summary_, "how many there are of each kind", format_group);
    flag("-n,--numeric", format_.numeric, "numbers for protocols of netlink and packet sockets",
         format_group);
    flag("-Q,--no-queues", no_queues_, "without Recv-Q and Send-Q", format_group);
    flag("-H,--no-header", no_headers_, "", "");
    flag("-O,--oneline", ignored_, "", "");  // always
  }

  Result<void> run(Session& session) override {
    VMSIGHT_TRY_VOID(choose_kinds());
    VMSIGHT_TRY_VOID(choose_states());
    VMSIGHT_TRY(filter_, parse_socket_filter(words_));
    StateVerb verb;
    verb.rows = part_sockets;
    // Owners are found through the open files of processes.
    verb.options.parts =
        part_processes | part_open_files | part_sockets | (netns_.empty() ? 0 : namespace_parts);
    verb.shown = part_sockets;
    session.common.headers &= !no_headers_;
    format_.table.headers = session.common.headers;
    format_.netid = kinds_.size() != 1;
    format_.state = (shown_states_ & (shown_states_ - 1)) != 0;
    format_.queues = !no_queues_;
    verb.filter = [this](State& state, Guest&) { return filter(state); };
    verb.text = [this](Output& out, const State& state, const Guest&) {
      summary_ ? print_socket_summary(out, state) : print_sockets(out, state, format_);
    };
    return show_state(session, verb);
  }

 private:
  Result<void> choose_kinds() {
    for (const auto& [asked, name] :
         {std::pair(tcp_, "tcp"), std::pair(udp_, "udp"), std::pair(raw_, "raw"),
          std::pair(sctp_, "sctp"), std::pair(dccp_, "dccp"), std::pair(mptcp_, "mptcp")}) {
      if (asked) VMSIGHT_TRY_VOID(add_kinds(name));
    }
    for (const std::string& name : queries_) VMSIGHT_TRY_VOID(add_kinds(name));
    if (ipv4_) VMSIGHT_TRY_VOID(add_family("inet"));
    if (ipv6_) VMSIGHT_TRY_VOID(add_family("inet6"));
    if (unix_) VMSIGHT_TRY_VOID(add_family("unix"));
    if (packet_) VMSIGHT_TRY_VOID(add_family("link"));
    if (vsock_) VMSIGHT_TRY_VOID(add_family("vsock"));
    if (!family_.empty()) VMSIGHT_TRY_VOID(add_family(family_));
    complete();
    return {};
  }

  static std::string_view kind_family(std::string_view family) {
    return family == "inet6" ? "inet" : family;
  }

  /// A kind by its name, or all of a family.
  Result<void> add_kinds(std::string name) {
    for (const auto& [alias, whole] : query_names) {
      if (name == alias) name = whole;
    }
    bool known = false;
    for (const SocketKind& kind : socket_kinds) {
      if (name != "all" && name != kind.name && name != kind.family) continue;
      kinds_.insert(std::string(kind.name));
      shown_states_ |= kind.states;
      known = true;
    }
    if (known) return {};
    return usage_error(
        "ss: unknown kind of socket '" + name + "'",
        "kinds: all inet tcp udp raw unix unix_dgram unix_stream unix_seqpacket packet "
        "packet_raw packet_dgram netlink sctp dccp mptcp vsock tipc xdp");
  }

  Result<void> add_family(const std::string& name) {
    const std::string family = name == "link" ? "packet" : name;
    const auto known =
        std::find_if(std::begin(socket_kinds), std::end(socket_kinds),
                     [&](const SocketKind& kind) { return kind.family == kind_family(family); });
    if (known == std::end(socket_kinds)) {
      return usage_error("ss: unknown family '" + name + "'",
                         "families: inet inet6 link unix netlink vsock tipc xdp");
    }
    families_.insert(family);
    const bool listed = family == "packet" || family == "netlink" || family == "xdp";
    shown_states_ |= listed ? state_close : connected_states;
    return {};
  }

  /// As ss: kinds without their family bring it, families without a kind bring all of theirs.
  void complete() {
    const std::set<std::string, std::less<>> kinds = kinds_, families = families_;
    for (const SocketKind& kind : socket_kinds) {
      const std::string family(kind.family);
      const bool inet = family == "inet";
      const bool has_family = families.contains(family) || (inet && families.contains("inet6"));
      if (kinds.contains(kind.name) && !has_family) {
        families_.insert(family);
        if (inet) families_.insert("inet6");
      }
      const bool has_kind = std::any_of(
          std::begin(socket_kinds), std::end(socket_kinds), [&](const SocketKind& other) {
            return other.family == kind.family && kinds.contains(other.name);
          });
      if (has_family && !has_kind) kinds_.insert(std::string(kind.name));
    }
    chosen_ = !kinds_.empty();
    if (!chosen_) shown_states_ = connected_states;
  }

  /// "state" and "exclude" precede the expression.
  Result<void> choose_states() {
    if (listening_) shown_states_ = state_listen | state_close;
    if (all_) shown_states_ = all_states;
    bool first = true;
    for (const std::string& name : states_) {
      VMSIGHT_TRY(const SocketStates bits, known_states(name));
      shown_states_ = (first ? 0 : shown_states_) | bits;
      first = false;
    }
    std::size_t at = 0;
    for (; at < words_.size(); at += 2) {
      const bool add = words_[at] == "state";
      if (!add && words_[at] != "exclude" && words_[at] != "excl") break;
      if (at + 1 == words_.size()) return usage_error("ss: '" + words_[at] + "' needs a state");
      VMSIGHT_TRY(const SocketStates bits, known_states(words_[at + 1]));
      if (first) shown_states_ = add ? 0 : all_states;
      shown_states_ = add ? shown_states_ | bits : shown_states_ & ~bits;
      first = false;
    }
    states_asked_ = !first;
    words_.erase(words_.begin(), words_.begin() + static_cast<std::ptrdiff_t>(at));
    return {};
  }

  static Result<SocketStates> known_states(const std::string& name) {
    if (const auto bits = parse_states(name)) return *bits;
    return usage_error("ss: unknown state '" + name + "'",
                       "states: established syn-sent syn-recv fin-wait-1 fin-wait-2 time-wait "
                       "unconnected close-wait last-ack listening closing all connected "
                       "synchronized bucket big");
  }

  Result<void> filter(State& state) const {
    for (const std::int32_t pid : pids_) {
      const bool known = std::any_of(state.processes.begin(), state.processes.end(),
                                     [&](const Process& process) { return process.pid == pid; });
      if (!known) return no_such_pid(pid);
    }
    std::optional<std::uint64_t> netns;
    if (!netns_.empty()) {
      VMSIGHT_TRY(netns, find_network_namespace(state, netns_));
    }
    std::erase_if(state.sockets, [&](const Socket& socket) {
      return !wanted(socket) || (netns && socket.netns != *netns);
    });
    return {};
  }

  bool wanted(const Socket& socket) const {
    if (chosen_ && !(kinds_.contains(kind_of(socket)) && families_.contains(socket.family)))
      return false;
    return wanted_state(socket) && filter_(socket) &&
           (pids_.empty() || (socket.pid && among(pids_, *socket.pid)));
  }

  bool wanted_state(const Socket& socket) const {
    if (summary_ && !listening_ && !states_asked_) return true;
    const SocketStates state = state_bit(socket);
    // A TCP socket that is not connected does not wait for anything, as a UDP one does.
    if (listening_ && !states_asked_ && state == state_close && socket.protocol == "tcp")
      return false;
    return (shown_states_ & state) != 0;
  }

  bool tcp_ = false, udp_ = false, raw_ = false, unix_ = false, packet_ = false, sctp_ = false,
       dccp_ = false, mptcp_ = false, vsock_ = false;
  bool ipv4_ = false, ipv6_ = false, listening_ = false, all_ = false;
  bool summary_ = false, ignored_ = false, no_headers_ = false, no_queues_ = false;
  std::vector<std::string> words_, states_, queries_;
  std::vector<std::int32_t> pids_;
  std::string family_, netns_;
  std::set<std::string, std::less<>> kinds_, families_;
  SocketStates shown_states_ = 0;
  bool chosen_ = false, states_asked_ = false;
  SocketFilter filter_;
  SsFormat format_;
};

}  // namespace

extern const VerbInfo ss_verb{
    .name = "ss",
    .group = "What is in the guest",
    .arguments = "VM [options] [EXPRESSION]",
    .summary = "Sockets of all network namespaces",
    .examples =
        "  vmsight ss web1 -ltnp\n"
        "  vmsight ss web1 -ta state established '( dport = :443 or sport = :22 )'\n"
        "  vmsight ss web1 -s\n",
    .shows_records = true,
    .make = make_verb<Ss>,
};

}  // namespace vmsight
