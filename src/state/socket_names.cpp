#include "state/socket_names.h"

#include <array>
#include <utility>

namespace vmsight {
namespace {

using Name = std::pair<unsigned, std::string_view>;

// AF_* of include/linux/socket.h.
constexpr Name families[] = {
    {1, "unix"},       {2, "inet"},    {3, "ax25"},   {4, "ipx"},     {5, "appletalk"},
    {6, "netrom"},     {9, "x25"},     {10, "inet6"}, {11, "rose"},   {15, "key"},
    {16, "netlink"},   {17, "packet"}, {20, "atm"},   {21, "rds"},    {24, "pppox"},
    {26, "llc"},       {27, "ib"},     {28, "mpls"},  {29, "can"},    {30, "tipc"},
    {31, "bluetooth"}, {33, "rxrpc"},  {34, "isdn"},  {35, "phonet"}, {36, "ieee802154"},
    {37, "caif"},      {38, "alg"},    {39, "nfc"},   {40, "vsock"},  {41, "kcm"},
    {42, "qipcrtr"},   {43, "smc"},    {44, "xdp"},   {45, "mctp"},
};
// IPPROTO_* of include/uapi/linux/in.h, as `ss` and /proc/net call the sockets.
constexpr Name protocols[] = {
    {1, "icmp"},  {2, "igmp"},   {6, "tcp"},    {17, "udp"},      {33, "dccp"},
    {58, "icmp"}, {115, "l2tp"}, {132, "sctp"}, {136, "udplite"}, {262, "mptcp"},
};
constexpr std::array<std::string_view, 14> tcp_states = {
    "UNKNOWN", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
    "CLOSE",   "CLOSE_WAIT",  "LAST_ACK", "LISTEN",   "CLOSING",   "SYN_RECV",  "BOUND_INACTIVE",
};
constexpr std::array<std::string_view, 11> types = {
    "", "stream", "dgram", "raw", "rdm", "seqpacket", "dccp", "", "", "", "packet",
};

template <std::size_t N>
std::string_view find(const Name (&names)[N], unsigned number) {
  for (const Name& name : names) {
    if (name.first == number) return name.second;
  }
  return "";
}

}  // namespace

std::string_view socket_family_name(unsigned family) {
  if (family == af_inet) return "inet";
  return find(families, family);
}

std::string_view socket_type_name(unsigned type) { return type < types.size() ? types[type] : ""; }

std::string_view inet_protocol_name(unsigned type, unsigned protocol) {
  if (type == sock_raw) return "raw";
  return find(protocols, protocol);
}

std::string_view tcp_state_name(unsigned state) {
  return tcp_states[state < tcp_states.size() ? state : 0];
}

std::string_view plain_state_name(unsigned state) {
  if (state == tcp_listen) return "LISTEN";
  return state == tcp_established ? "ESTABLISHED" : "UNCONN";
}

}  // namespace vmsight
