#include "cli/lsof_address.h"

#include <arpa/inet.h>
#include <netdb.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "cli/verb.h"

namespace vmsight {
namespace {

constexpr std::array<std::string_view, 3> protocols = {"tcp", "udp", "udplite"};

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

Error malformed(std::string_view what, const std::string& text) {
  return usage_error(fmt::format("lsof: {} in '-i {}'", what, text),
                     "the form is [46][TCP|UDP|UDPLITE][@ADDRESS][:PORT,...]");
}

/// 10.0.0.1 where the kernel has ::ffff:10.0.0.1.
std::string_view without_mapping(std::string_view address) {
  constexpr std::string_view mapped = "::ffff:";
  const bool is_mapped = address.starts_with(mapped) && address.find('.') != std::string_view::npos;
  return is_mapped ? address.substr(mapped.size()) : address;
}

/// The kernel's names, and those of other systems that people type.
std::string state_name(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (upper == "CLOSED") return "CLOSE";
  if (upper == "SYN_RCDV" || upper == "SYN_RCVD") return "SYN_RECV";
  if (upper == "FIN_WAIT_1") return "FIN_WAIT1";
  if (upper == "FIN_WAIT_2") return "FIN_WAIT2";
  return upper;
}

constexpr std::array<std::string_view, 13> tcp_states = {
    "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2",    "TIME_WAIT", "CLOSE",
    "CLOSE_WAIT",  "LAST_ACK", "LISTEN",   "CLOSING",   "NEW_SYN_RECV", "UNCONN"};

}  // namespace

bool is_internet_file(const Socket& socket) {
  if (socket.family != "inet" && socket.family != "inet6") return false;
  if (std::find(protocols.begin(), protocols.end(), socket.protocol) == protocols.end()) {
    return false;
  }
  return socket.local_port != 0 || socket.remote_port != 0;  // else it was never bound
}

Result<InetAddress> InetAddress::parse(const std::string& text) {
  InetAddress address;
  std::string_view rest = text;
  if (rest.starts_with('4') || rest.starts_with('6')) {
    address.version_ = rest.front();
    rest.remove_prefix(1);
  }
  address.protocol_ = lower(rest.substr(0, rest.find_first_of("@:")));
  rest.remove_prefix(address.protocol_.size());
  if (!address.protocol_.empty() &&
      std::find(protocols.begin(), protocols.end(), address.protocol_) == protocols.end()) {
    return malformed("unknown protocol '" + address.protocol_ + "'", text);
  }
  if (rest.starts_with('@')) {
    rest.remove_prefix(1);
    const bool bracketed = rest.starts_with('[');
    const std::size_t end = bracketed ? rest.find(']') : std::min(rest.find(':'), rest.size());
    if (end == rest.npos) return malformed("no ']'", text);
    VMSIGHT_TRY_VOID(
        address.take_host(bracketed ? rest.substr(1, end - 1) : rest.substr(0, end), text));
    rest.remove_prefix(end + (bracketed ? 1 : 0));
  }
  if (rest.starts_with(':')) {
    VMSIGHT_TRY_VOID(address.take_ports(rest.substr(1), text));
  } else if (!rest.empty()) {
    return malformed("'" + std::string(rest) + "'", text);
  }
  return address;
}

Result<void> InetAddress::take_host(std::string_view host, const std::string& text) {
  const std::string name(host);
  std::array<unsigned char, 16> raw{};
  const bool is_v4 = ::inet_pton(AF_INET, name.c_str(), raw.data()) == 1;
  if (!is_v4 && ::inet_pton(AF_INET6, name.c_str(), raw.data()) != 1) {
    return usage_error(fmt::format("lsof: '{}' in '-i {}' is not an address", name, text),
                       "names of hosts are not looked up; IPv6 addresses stand in brackets");
  }
  if (version_ != 0 && (version_ == '4') != is_v4) {
    return malformed("an address of the other version", text);
  }
  std::array<char, INET6_ADDRSTRLEN> buffer{};
  host_ = ::inet_ntop(is_v4 ? AF_INET : AF_INET6, raw.data(), buffer.data(), buffer.size());
  return {};
}

Result<std::uint16_t> InetAddress::port(std::string_view word, const std::string& text) const {
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error == std::errc() && end == word.data() + word.size()) return number;
  const char* protocol = protocol_.empty() ? nullptr : protocol_.c_str();
  const servent* service = ::getservbyname(std::string(word).c_str(), protocol);
  if (service == nullptr) {
    return malformed("unknown service '" + std::string(word) + "'", text);
  }
  return ntohs(static_cast<std::uint16_t>(service->s_port));
}

Result<void> InetAddress::take_ports(std::string_view list, const std::string& text) {
  while (true) {
    const std::string_view item = list.substr(0, list.find(','));
    const std::size_t dash = item.find('-');
    const bool is_range = dash != item.npos && dash > 0 && std::isdigit(item[0]) != 0;
    VMSIGHT_TRY(const std::uint16_t first, port(is_range ? item.substr(0, dash) : item, text));
    std::uint16_t last = first;
    if (is_range) {
      VMSIGHT_TRY(last, port(item.substr(dash + 1), text));
    }
    if (last < first) return malformed("a range that ends before it begins", text);
    ports_.emplace_back(first, last);
    if (item.size() == list.size()) return {};
    list.remove_prefix(item.size() + 1);
  }
}

bool InetAddress::has_port(std::uint32_t port) const {
  return ports_.empty() || std::any_of(ports_.begin(), ports_.end(), [&](const auto& range) {
           return range.first <= port && port <= range.second;
         });
}

bool InetAddress::matches(const Socket& socket) const {
  if (!is_internet_file(socket)) return false;
  if (version_ == '4' && socket.family != "inet") return false;
  if (version_ == '6' && socket.family != "inet6") return false;
  if (!protocol_.empty() && socket.protocol != protocol_) return false;
  const auto end = [&](std::string_view address, std::uint32_t port) {
    return (host_.empty() || address == host_ || without_mapping(address) == host_) &&
           has_port(port);
  };
  const bool connected = socket.remote_port != 0;
  return end(socket.local, socket.local_port) ||
         (connected && end(socket.remote, socket.remote_port));
}

Result<void> SocketStates::add(const std::string& text) {
  const std::size_t colon = text.find(':');
  const std::string protocol = lower(std::string_view(text).substr(0, colon));
  if (colon == text.npos || (protocol != "tcp" && protocol != "udp")) {
    return usage_error("lsof: '-s " + text + "' is no PROTOCOL:STATE",
                       "such as TCP:LISTEN or TCP:^CLOSE,^TIME_WAIT");
  }
  std::string_view rest = std::string_view(text).substr(colon + 1);
  while (!rest.empty()) {
    std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    const bool excluded = word.starts_with('^');
    if (excluded) word.remove_prefix(1);
    const std::string name = state_name(word);
    if (std::find(tcp_states.begin(), tcp_states.end(), name) == tcp_states.end()) {
      return usage_error(fmt::format("lsof: unknown state '{}' in '-s {}'", word, text),
                         fmt::format("states: {}", fmt::join(tcp_states, " ")));
    }
    (excluded ? excluded_ : wanted_).emplace_back(protocol, name);
  }
  return {};
}

/// States are asked about of the protocols that are named only.
bool SocketStates::let_pass(const Socket& socket) const {
  const auto is = [&](const auto& one) {
    return one.first == socket.protocol && one.second == socket.state;
  };
  const auto of_protocol = [&](const auto& one) { return one.first == socket.protocol; };
  if (std::any_of(excluded_.begin(), excluded_.end(), is)) return false;
  return std::none_of(wanted_.begin(), wanted_.end(), of_protocol) ||
         std::any_of(wanted_.begin(), wanted_.end(), is);
}

}  // namespace vmsight
