// What `lsof -i` and `-s` choose by: [46][protocol][@host][:port,...] and PROTOCOL:STATE,...
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vmsight/result.h"
#include "vmsight/state.h"

namespace vmsight {

class InetAddress {
 public:
  /// usage if it is not one; names of hosts are not looked up.
  static Result<InetAddress> parse(const std::string& text);
  /// Is either end of the socket at this address?
  bool matches(const Socket& socket) const;

 private:
  Result<void> take_host(std::string_view host, const std::string& text);
  Result<void> take_ports(std::string_view list, const std::string& text);
  Result<std::uint16_t> port(std::string_view word, const std::string& text) const;
  bool has_port(std::uint32_t port) const;

  char version_ = 0;      // '4', '6', 0: both
  std::string protocol_;  // "tcp", "": any
  std::string host_;      // as the state document writes it, "": any
  std::vector<std::pair<std::uint16_t, std::uint16_t>> ports_;  // ranges; empty: any
};

/// A socket that lsof calls an Internet file: of TCP or UDP, with an address.
bool is_internet_file(const Socket& socket);

class SocketStates {
 public:
  /// Adds "TCP:LISTEN,^CLOSED". usage if there is no such protocol or state.
  Result<void> add(const std::string& text);
  bool let_pass(const Socket& socket) const;

 private:
  std::vector<std::pair<std::string, std::string>> wanted_, excluded_;  // protocol, state
};

}  // namespace vmsight
