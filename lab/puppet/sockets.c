// Sockets of every family and state the guest's kernel offers without more modules.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "puppet.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

typedef union {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
  struct sockaddr_un un;
} Address;

static socklen_t loopback(int family, Address* address) {
  memset(address, 0, sizeof(*address));
  address->any.sa_family = family;
  if (family == AF_INET) {
    address->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sizeof(address->v4);
  }
  address->v6.sin6_addr = in6addr_loopback;
  return sizeof(address->v6);
}

static int bound(int family, int type, Address* address) {
  socklen_t size = loopback(family, address);
  int fd = socket(family, type, 0);
  if (fd < 0 || bind(fd, &address->any, size) || getsockname(fd, &address->any, &size)) return -1;
  return fd;
}

static int connected(int family, int type, const Address* address) {
  int fd = socket(family, type, 0);
  socklen_t size = family == AF_INET ? sizeof(address->v4) : sizeof(address->v6);
  return fd < 0 || connect(fd, &address->any, size) ? -1 : fd;
}

// LISTEN, a pair ESTABLISHED, and a pair of FIN_WAIT2 and CLOSE_WAIT.
static int open_tcp(int family) {
  Address address;
  int listener = bound(family, SOCK_STREAM, &address);
  if (listener < 0 || listen(listener, 8)) return -1;
  int talking = connected(family, SOCK_STREAM, &address), answering = accept(listener, NULL, NULL);
  int leaving = connected(family, SOCK_STREAM, &address), left = accept(listener, NULL, NULL);
  char byte;
  if (talking < 0 || answering < 0 || leaving < 0 || left < 0 || shutdown(leaving, SHUT_WR))
    return -1;
  return read(left, &byte, 1) == 0 ? 0 : -1;  // the FIN has arrived: CLOSE_WAIT
}

// Whoever closes first keeps TIME_WAIT for a minute, a state that is nobody's file.
static int leave_time_wait(int family) {
  Address address;
  int listener = bound(family, SOCK_STREAM, &address);
  if (listener < 0 || listen(listener, 1)) return -1;
  int first = connected(family, SOCK_STREAM, &address), second = accept(listener, NULL, NULL);
  char byte;
  if (first < 0 || second < 0 || close(first) || read(second, &byte, 1) != 0) return -1;
  return close(second) || close(listener) ? -1 : 0;
}

static int open_udp(int family) {
  Address address;
  return bound(family, SOCK_DGRAM, &address) < 0 || connected(family, SOCK_DGRAM, &address) < 0 ? -1
                                                                                                : 0;
}

static int bound_unix(int type, const char* kind, int number, int abstract) {
  Address address = {.un.sun_family = AF_UNIX};
  int used = snprintf(address.un.sun_path + abstract, sizeof(address.un.sun_path) - 1, "%s%s-%d-%d",
                      abstract ? "" : "/tmp/", kind, getpid(), number);
  int fd = socket(AF_UNIX, type, 0);
  return bind(fd, &address.any, offsetof(struct sockaddr_un, sun_path) + abstract + used) ? -1 : fd;
}

static int open_unix(int number) {
  int pair[2];
  int stream = bound_unix(SOCK_STREAM, "stream", number, 0),
      packets = bound_unix(SOCK_SEQPACKET, "seq", number, 1);
  return stream < 0 || listen(stream, 4) || packets < 0 || listen(packets, 4) ||
                 bound_unix(SOCK_DGRAM, "dgram", number, 0) < 0 ||
                 socketpair(AF_UNIX, SOCK_STREAM, 0, pair)
             ? -1
             : 0;
}

static int open_odd(void) {
  struct sockaddr_nl groups = {.nl_family = AF_NETLINK, .nl_groups = 1};
  int uevents = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT);
  if (uevents < 0 || bind(uevents, (struct sockaddr*)&groups, sizeof(groups))) return -1;
  socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ARP));  // a module: it may be absent
  return socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) < 0 ||
                 socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) < 0 ||
                 socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6) < 0 ||
                 socket(AF_INET, SOCK_STREAM, 0) < 0
             ? -1
             : 0;
}

static int set_option(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof(value));
}

// IPv6 only, of one device, of a link-local address that no device has.
static int open_bound(void) {
  Address address = {.v6.sin6_family = AF_INET6};
  int only = socket(AF_INET6, SOCK_DGRAM, 0), device = socket(AF_INET, SOCK_STREAM, 0),
      scoped = socket(AF_INET6, SOCK_STREAM, 0), mixed = socket(AF_INET6, SOCK_STREAM, 0);
  if (set_option(only, IPPROTO_IPV6, IPV6_V6ONLY, 1) ||
      bind(only, &address.any, sizeof(address.v6)) || listen(mixed, 1) ||
      setsockopt(device, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) || listen(device, 1))
    return -1;
  inet_pton(AF_INET6, "fe80::1234", &address.v6.sin6_addr);
  address.v6.sin6_scope_id = 1;  // lo
  return set_option(scoped, IPPROTO_IPV6, IPV6_FREEBIND, 1) ||
                 bind(scoped, &address.any, sizeof(address.v6)) || listen(scoped, 3)
             ? -1
             : 0;
}

// Sockets that are told apart by a protocol: raw ones, of packets, of netlink with groups.
static int open_protocols(void) {
  struct sockaddr_nl groups = {.nl_family = AF_NETLINK, .nl_groups = 5};
  int routes = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  struct sockaddr_ll place = {
      .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = 1};
  int packets = socket(AF_PACKET, SOCK_DGRAM, 0);  // a module: it may be absent
  if (packets >= 0 && bind(packets, (struct sockaddr*)&place, sizeof(place))) return -1;
  return socket(AF_INET, SOCK_RAW, 89) < 0 || socket(AF_INET6, SOCK_RAW, 89) < 0 ||
                 bind(routes, (struct sockaddr*)&groups, sizeof(groups))
             ? -1
             : 0;
}

int open_sockets(int sets) {
  for (int i = 0; i < sets; i++)
    if (open_tcp(AF_INET) || open_tcp(AF_INET6) || open_udp(AF_INET) || open_udp(AF_INET6) ||
        open_unix(i) || open_odd() || open_bound() || open_protocols() ||
        leave_time_wait(AF_INET) || leave_time_wait(AF_INET6))
      return -1;
  return 0;
}

int open_more_sockets(int count) {
  for (int i = 0; i < count; i++) {
    Address address;
    int type = i % 3 ? SOCK_DGRAM : SOCK_STREAM;
    int fd = bound(i % 2 ? AF_INET : AF_INET6, type, &address);
    if (fd < 0 || (type == SOCK_STREAM && listen(fd, 1))) return -1;
  }
  return 0;
}

// Its connections are sockets of their own that no file holds. Kernels that cannot go without.
static int open_mptcp(int family) {
  Address address;
  socklen_t size = loopback(family, &address);
  struct timeval patience = {.tv_sec = 20};
  int listener = socket(family, SOCK_STREAM, IPPROTO_MPTCP);
  if (listener < 0) return 0;
  setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  if (bind(listener, &address.any, size) || getsockname(listener, &address.any, &size) ||
      listen(listener, 8))
    return -1;
  int talking = socket(family, SOCK_STREAM, IPPROTO_MPTCP);
  setsockopt(talking, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  if (talking < 0 || connect(talking, &address.any, size)) return -1;
  return accept(listener, NULL, NULL) < 0 ? -1 : 0;
}

static int hold_sockets(int unused) {
  (void)unused;
  prctl(PR_SET_NAME, "sockets");
  return open_sockets(1) || open_mptcp(AF_INET) || open_mptcp(AF_INET6) ? -1 : 0;
}

int make_sockets(void) { return spawn(hold_sockets, 0) < 0 ? -1 : 0; }
