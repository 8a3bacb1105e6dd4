#include "cli/ss_filter.h"

#include <fmt/ranges.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/text.h"
#include "cli/address_prefix.h"
#include "cli/filters.h"
#include "cli/verb.h"

namespace vmsight {
namespace {

constexpr unsigned max_nesting = 100;
constexpr std::pair<std::string_view, SocketStates> state_names[] = {
    {"established", state_established},
    {"estab", state_established},
    {"syn-sent", 1 << 2},
    {"syn-recv", state_syn_recv},
    {"syn-rcv", state_syn_recv},
    {"fin-wait-1", 1 << 4},
    {"fin-wait1", 1 << 4},
    {"fin-wait-2", 1 << 5},
    {"fin-wait2", 1 << 5},
    {"time-wait", state_time_wait},
    {"unconnected", state_close},
    {"unconn", state_close},
    {"close", state_close},
    {"closed", state_close},
    {"close-wait", 1 << 8},
    {"last-ack", 1 << 9},
    {"listening", state_listen},
    {"listen", state_listen},
    {"closing", 1 << 11},
    {"bound-inactive", 1 << 13},
    {"all", all_states},
    {"connected", all_states & ~(state_close | state_listen)},
    {"synchronized", all_states & ~(state_close | state_listen | 1 << 2)},
    {"bucket", state_syn_recv | state_time_wait},
    {"big", all_states & ~(state_syn_recv | state_time_wait)},
};

std::string lower(std::string_view text) {
  std::string low(text);
  for (char& c : low) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '_') c = '-';
  }
  return low;
}

enum class SocketSide : std::uint8_t { local, remote };

std::uint32_t port_of(const Socket& socket, SocketSide side) {
  return side == SocketSide::local ? socket.local_port : socket.remote_port;
}

/// An address with how many of its leading bits count, and perhaps a port.
struct SocketPlace {
  std::string family;  // "" : any
  AddressPrefix prefix;
  std::string pattern;  // of names: unix sockets, devices of packet sockets, netlink
  std::optional<std::uint32_t> port;
};

/// As ss: an IPv4 address that an IPv6 socket has mapped is an IPv4 address.
bool matches_address(std::string_view text, const AddressPrefix& prefix) {
  const auto own = parse_address(text);
  if (!own) return false;
  if (own->family == prefix.family) return prefix.holds(own->bytes.data());
  constexpr std::array<unsigned char, 12> mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return own->family == AF_INET6 && std::equal(mapped.begin(), mapped.end(), own->bytes.begin()) &&
         prefix.holds(own->bytes.data() + mapped.size());
}

bool matches_place(const Socket& socket, SocketSide side, const SocketPlace& place) {
  const std::string_view address = side == SocketSide::local ? socket.local : socket.remote;
  const bool inet = socket.family == "inet" || socket.family == "inet6";
  if (!place.family.empty() && socket.family != place.family) return false;
  if (place.port && port_of(socket, side) != *place.port) return false;
  if (!place.pattern.empty()) return matches(place.pattern, address);
  if (place.prefix.bits == 0) return true;
  return inet && matches_address(address, place.prefix);
}

class FilterParser {
 public:
  explicit FilterParser(std::vector<std::string> words) : words_(std::move(words)) {}

  Result<SocketFilter> parse() {
    VMSIGHT_TRY(SocketFilter filter, expression(0));
    if (!at_end()) return fail("'" + words_[at_] + "' is not expected there");
    return filter;
  }

 private:
  bool at_end() const { return at_ == words_.size(); }
  bool is(std::initializer_list<std::string_view> words) const {
    return !at_end() && std::find(words.begin(), words.end(), words_[at_]) != words.end();
  }
  bool take(std::initializer_list<std::string_view> words) {
    if (!is(words)) return false;
    ++at_;
    return true;
  }
  static Error fail(const std::string& what) {
    return usage_error("ss: filter: " + what,
                       "as in: state established '( dport = :22 or src 10.0.0.0/8 )'");
  }

  Result<SocketFilter> expression(unsigned depth) {
    VMSIGHT_TRY(SocketFilter left, conjunction(depth));
    while (take({"or", "|", "||"})) {
      VMSIGHT_TRY(SocketFilter right, conjunction(depth));
      left = [left, right](const Socket& socket) { return left(socket) || right(socket); };
    }
    return left;
  }

  Result<SocketFilter> conjunction(unsigned depth) {
    VMSIGHT_TRY(SocketFilter left, term(depth));
    while (!at_end() && !is({"or", "|", "||", ")"})) {
      take({"and", "&", "&&"});
      VMSIGHT_TRY(SocketFilter right, term(depth));
      left = [left, right](const Socket& socket) { return left(socket) && right(socket); };
    }
    return left;
  }

  Result<SocketFilter> term(unsigned depth) {
    if (depth == max_nesting) return fail("it is nested too deeply");
    if (at_end()) return fail("it ends where a term is expected");
    if (take({"not", "!"})) {
      VMSIGHT_TRY(SocketFilter inner, term(depth + 1));
      return negated(inner);
    }
    if (take({"("})) {
      VMSIGHT_TRY(SocketFilter inner, expression(depth + 1));
      if (!take({")"})) return fail("a ')' is missing");
      return inner;
    }
    const std::string word = words_[at_++];
    if (word == "src" || word == "dst") {
      return place(word == "src" ? SocketSide::local : SocketSide::remote);
    }
    if (word == "sport" || word == "dport") {
      return port(word == "sport" ? SocketSide::local : SocketSide::remote);
    }
    if (word == "dev") return device();
    return fail("'" + word + "' is not known; known are src dst sport dport dev not ( )");
  }

  static SocketFilter negated(const SocketFilter& inner) {
    return [inner](const Socket& socket) { return !inner(socket); };
  }

  /// "=" or nothing; "!=" turns it around.
  bool take_equality() {
    if (take({"!=", "ne", "neq"})) return false;
    take({"=", "==", "eq"});
    return true;
  }

  Result<SocketFilter> place(SocketSide side) {
    const bool equal = take_equality();
    if (at_end()) return fail("an address is missing");
    VMSIGHT_TRY(const SocketPlace wanted, parse_place(words_[at_++]));
    const SocketFilter filter = [side, wanted](const Socket& socket) {
      return matches_place(socket, side, wanted);
    };
    return equal ? filter : negated(filter);
  }

  Result<SocketFilter> port(SocketSide side) {
    static constexpr std::pair<std::string_view, int> operators[] = {
        {">=", 0}, {"geq", 0}, {"ge", 0}, {"<=", 1}, {"leq", 1}, {"le", 1}, {">", 2},  {"gt", 2},
        {"<", 3},  {"lt", 3},  {"=", 4},  {"==", 4}, {"eq", 4},  {"!=", 5}, {"ne", 5}, {"neq", 5}};
    int how = 4;
    for (const auto& [name, number] : operators) {
      if (!at_end() && words_[at_] == name) {
        how = number;
        ++at_;
        break;
      }
    }
    if (at_end()) return fail("a port is missing");
    std::string text = words_[at_++];
    VMSIGHT_TRY(const std::string family, take_family(text));
    if (text.starts_with('*')) text.erase(0, 1);
    if (text.starts_with(':')) text.erase(0, 1);
    VMSIGHT_TRY(const std::uint32_t number, parse_port(text));
    return SocketFilter([side, how, number, family](const Socket& socket) {
      const std::uint32_t value = port_of(socket, side);
      if (!family.empty() && socket.family != family) return how == 5;
      switch (how) {
        case 0:
          return value >= number;
        case 1:
          return value <= number;
        case 2:
          return value > number;
        case 3:
          return value < number;
        case 4:
          return value == number;
        default:
          return value != number;
      }
    });
  }

  Result<SocketFilter> device() {
    const bool equal = take_equality();
    if (at_end()) return fail("a device is missing");
    const std::string name = words_[at_++];
    return SocketFilter(
        [equal, name](const Socket& socket) { return (socket.device == name) == equal; });
  }

  /// Cuts "FAMILY:" off the beginning; "" if there is none.
  static Result<std::string> take_family(std::string& text) {
    for (const auto& [prefix, family] :
         {std::pair("unix:", "unix"), std::pair("link:", "packet"), std::pair("inet:", "inet"),
          std::pair("inet6:", "inet6"), std::pair("netlink:", "netlink"),
          std::pair("vsock:", "vsock")}) {
      if (!text.starts_with(prefix)) continue;
      text.erase(0, std::string_view(prefix).size());
      return std::string(family);
    }
    return std::string();
  }

  static Result<std::uint32_t> parse_port(const std::string& text) {
    if (const auto number = parse_whole<std::uint32_t>(text)) return *number;
    if (const servent* service = ::getservbyname(text.c_str(), nullptr)) {
      return std::uint32_t{ntohs(static_cast<std::uint16_t>(service->s_port))};
    }
    return fail("'" + text + "' is no port");
  }

  /// "10.0.0.0/8", "[::1]:80", "1.2.3.4:80", "*:80", ":80", "unix:/run/*".
  static Result<SocketPlace> parse_place(std::string text) {
    SocketPlace place;
    const std::string whole = text;
    VMSIGHT_TRY(place.family, take_family(text));
    if (place.family == "unix" || text.starts_with('/') || text.starts_with('@')) {
      place.family = "unix";
      place.pattern = text.empty() ? "*" : text;
      return place;
    }
    if (!place.family.empty() && !place.family.starts_with("inet")) {
      return fail("'" + whole + "': addresses of this family are not known, `-f` chooses it");
    }
    VMSIGHT_TRY_VOID(cut_port(text, place));
    if (text.empty() || text == "*") return place;
    return parse_bits(text, whole, place);
  }

  /// A port follows the last colon, unless the address itself has several.
  static Result<void> cut_port(std::string& text, SocketPlace& place) {
    const std::size_t bracket = text.rfind(']'), colon = text.rfind(':');
    const bool several = text.find(':') != colon && bracket == text.npos;
    if (colon == text.npos || several || (bracket != text.npos && colon < bracket)) return {};
    const std::string port = text.substr(colon + 1);
    text.erase(colon);
    if (port == "*" || port.empty()) return {};
    VMSIGHT_TRY(place.port, parse_port(port));
    return {};
  }

  static Result<SocketPlace> parse_bits(std::string text, const std::string& whole,
                                        SocketPlace place) {
    std::erase(text, '[');
    std::erase(text, ']');
    const std::size_t slash = text.find('/');
    const auto address = parse_address(text.substr(0, slash));
    if (!address) return fail("'" + whole + "' is no address; names are not looked up");
    place.prefix = *address;
    if (slash == text.npos || place.prefix.set_bits(text.substr(slash + 1))) return place;
    return fail("'" + whole + "' has no such number of bits");
  }

  std::vector<std::string> words_;
  std::size_t at_ = 0;
};

/// Words as the shell passes them, and signs within them that stand alone.
std::vector<std::string> split_words(const std::vector<std::string>& words) {
  std::vector<std::string> parts;
  for (const std::string& word : words) {
    std::string part;
    const auto flush = [&] {
      if (!part.empty()) parts.push_back(std::exchange(part, {}));
    };
    for (std::size_t i = 0; i < word.size(); ++i) {
      const char c = word[i];
      const bool two = i + 1 < word.size() && (word[i + 1] == '=' || word[i + 1] == c);
      if (c == ' ' || c == '\t' || c == '\n') {
        flush();
      } else if (c == '(' || c == ')') {
        flush();
        parts.emplace_back(1, c);
      } else if (std::string_view("=<>!&|").find(c) != std::string_view::npos) {
        flush();
        parts.push_back(word.substr(i, two ? 2 : 1));
        i += two ? 1 : 0;
      } else {
        part += c;
      }
    }
    flush();
  }
  return parts;
}

}  // namespace

std::optional<SocketStates> parse_states(std::string_view name) {
  const std::string low = lower(name);
  for (const auto& [known, bits] : state_names) {
    if (known == low) return bits;
  }
  return std::nullopt;
}

SocketStates state_bit(const Socket& socket) {
  return parse_states(socket.state).value_or(SocketStates{1});  // 1: "UNKNOWN"
}

Result<SocketFilter> parse_socket_filter(const std::vector<std::string>& words) {
  std::vector<std::string> parts = split_words(words);
  if (parts.empty()) return SocketFilter([](const Socket&) { return true; });
  return FilterParser(std::move(parts)).parse();
}

}  // namespace vmsight
