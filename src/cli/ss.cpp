// vmsight ss VM: sockets.
#include <fmt/ranges.h>
#include <array>
#include <cctype>

#include "cli/filters.h"
#include "cli/target.h"
#include "render/sockets.h"

namespace vmsight {
namespace {

class Ss : public Verb {
 public:
  void declare(CLI::App& app) override {
    const auto flag = [&](const char* name, bool& value, const char* what, const char* group) {
      app.add_flag(name, value, what)->group(group);
    };
    flag("-t,--tcp", tcp_, "TCP", filter_group);
    flag("-u,--udp", udp_, "UDP", filter_group);
    flag("-w,--raw", raw_, "raw sockets", filter_group);
    flag("-x,--unix", unix_, "unix sockets", filter_group);
    flag("-0,--packet", packet_, "packet sockets", filter_group);
    flag("-4,--ipv4", ipv4_, "IPv4 only", filter_group);
    flag("-6,--ipv6", ipv6_, "IPv6 only", filter_group);
    flag("-l,--listening", listening_, "listening sockets only", filter_group);
    flag("-a,--all", all_, "listening sockets too", filter_group);
    app.add_option("--state", states_, "only sockets in these states, such as established,listen")
        ->group(filter_group)
        ->type_name("STATE,...")
        ->delimiter(',');
    app.add_option("--pid", pids_, "only sockets of these processes")
        ->group(filter_group)
        ->type_name("PID,...")
        ->delimiter(',');
    app.add_option("--netns", netns_, "only this network namespace")
        ->group(filter_group)
        ->type_name("INODE");
    flag("-p,--processes", format_.processes, "the processes that have the socket", format_group);
    flag("-e,--extended", format_.extended, "user ID and inode", format_group);
    flag("-N,--show-netns", format_.netns, "the network namespace", format_group);
    flag("-s,--summary", summary_, "how many there are of each kind; as JSON, all sockets",
         format_group);
    flag("-n,--numeric", ignored_, "", "");  // always
    flag("-H", no_headers_, "", "");
  }

  Result<void> run(Session& session) override {
    StateVerb verb;
    // Owners are found through the open files of processes.
    verb.options.parts = part_processes | part_open_files | part_sockets;
    verb.shown = part_sockets;
    format_.table.headers = session.common.headers && !no_headers_;
    format_.netid = int{tcp_} + int{udp_} + int{raw_} != 1 || unix_ || packet_;
    for (std::string& state : states_) {
      VMSIGHT_TRY(state, normalized(state));
    }
    verb.filter = [this](State& state, Target&) -> Result<void> {
      for (const std::int32_t pid : pids_) {
        const bool known = std::any_of(state.processes.begin(), state.processes.end(),
                                       [&](const Process& process) { return process.pid == pid; });
        if (!known) return no_such_pid(pid);
      }
      std::erase_if(state.sockets, [this](const Socket& socket) { return !wanted(socket); });
      return {};
    };
    verb.text = [this](Output& out, const State& state, const Target&) {
      summary_ ? print_socket_summary(out, state) : print_sockets(out, state, format_);
    };
    return show_state(session, verb);
  }

 private:
  static constexpr std::array<std::string_view, 12> known_states = {
      "ESTAB",      "SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT",
      "CLOSE-WAIT", "LAST-ACK", "LISTEN",   "CLOSING",    "UNCONN",     "BOUND-INACTIVE"};

  /// "time_wait", "TIME-WAIT" and "Time-Wait" are the same.
  static Result<std::string> normalized(const std::string& state) {
    std::string upper = state;
    for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const std::string name = upper == "LISTENING" ? "LISTEN" : ss_state(upper);
    if (std::find(known_states.begin(), known_states.end(), name) != known_states.end())
      return name;
    return usage_error("ss: unknown state '" + state + "'",
                       fmt::format("states: {}", fmt::join(known_states, " ")));
  }

  bool wanted_kind(const Socket& socket) const {
    if (!(tcp_ || udp_ || raw_ || unix_ || packet_)) return true;
    const std::string_view protocol = socket.protocol;
    return (tcp_ && protocol == "tcp") || (udp_ && protocol.starts_with("udp")) ||
           (raw_ && socket.type == "raw" && socket.family != "packet") ||
           (unix_ && socket.family == "unix") || (packet_ && socket.family == "packet");
  }

  bool wanted_state(const Socket& socket) const {
    const std::string state = ss_state(socket.state);
    if (!states_.empty()) return among(states_, state);
    // A TCP socket that is not connected does not wait for anything, as a UDP one does.
    const bool waits = state == "LISTEN" || (state == "UNCONN" && socket.protocol != "tcp");
    return all_ || (summary_ && !listening_) || waits == listening_;
  }

  bool wanted(const Socket& socket) const {
    const bool family = !(ipv4_ || ipv6_) || (ipv4_ && socket.family == "inet") ||
                        (ipv6_ && socket.family == "inet6");
    return family && wanted_kind(socket) && wanted_state(socket) &&
           (!netns_ || socket.netns == *netns_) &&
           (pids_.empty() || (socket.pid && among(pids_, *socket.pid)));
  }

  bool tcp_ = false, udp_ = false, raw_ = false, unix_ = false, packet_ = false;
  bool ipv4_ = false, ipv6_ = false, listening_ = false, all_ = false;
  bool summary_ = false, ignored_ = false, no_headers_ = false;
  std::vector<std::string> states_;
  std::vector<std::int32_t> pids_;
  std::optional<std::uint64_t> netns_;
  SsFormat format_;
};

}  // namespace

extern const VerbInfo ss_verb{
    .name = "ss",
    .group = "What is in the guest",
    .arguments = "VM [options]",
    .summary = "Sockets of all network namespaces",
    .examples =
        "  vmsight ss web1 -ltnp\n"
        "  vmsight ss web1 -ta --state established,time-wait\n"
        "  vmsight ss web1 -s\n",
    .make = make_verb<Ss>,
};

}  // namespace vmsight
