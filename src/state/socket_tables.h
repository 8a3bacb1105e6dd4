// Where the kernel keeps its sockets: the hash tables of each protocol.
//
//   table                 reached from                         links
//   TCP connections       net.ipv4.tcp_death_row.hashinfo      ehash: hlist_nulls
//   TCP listeners         the same                             lhash2, or listening_hash[]
//   UDP, UDP-Lite         udp_table, net.ipv4.udp_table        hash: hlist
//   raw, ping             raw_v4_hashinfo ..., ping_table      ht[], hash[]
//   unix                  unix_socket_table, net.unx.table     hlist
//   packet                net.packet.sklist                    one hlist
//   netlink               nl_table[protocol].hash              rhashtable
//
// Most tables hold the sockets of all network namespaces.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_set>
#include <vector>

#include "state/context.h"
#include "state/lists.h"
#include "state/members.h"
#include "state/net_namespaces.h"

namespace vmsight {

struct SocketTable {
  const char* name = "";
  BucketArray buckets;
  std::uint32_t node = 0;  // of the link in a sock
  /// The bucket of a sock is its skc_hash, and its chain ends with the bucket's number: so a
  /// chain that changed while it was read is noticed.
  bool checked = false;
};

class SocketTables {
 public:
  /// `node` is that of sock_common.skc_node.
  static Result<SocketTables> resolve(Kernel& kernel, std::uint32_t node);
  /// Each table once, whatever the number of namespaces that share it.
  std::vector<SocketTable> list(Context& context, std::span<const NetNamespace> namespaces) const;

 private:
  struct List {
    std::vector<SocketTable> tables;
    std::unordered_set<std::uint64_t> known;  // where they start
  };

  void resolve_tcp(Members& members);
  void resolve_udp(Members& members);
  void resolve_others(Members& members);

  void add(List& list, Context& context, const SocketTable& table) const;
  void add_tcp(List& list, Context& context, GuestVirt hashinfo) const;
  void add_udp(List& list, Context& context, GuestVirt table) const;
  void add_netlink(List& list, Context& context) const;

  std::uint32_t node_ = 0;
  // TCP
  std::optional<std::uint32_t> net_hashinfo_;
  GuestVirt hashinfo_;
  std::uint32_t ehash_ = 0, ehash_mask_ = 0, ehash_stride_ = 0, ehash_head_ = 0;
  std::optional<Member> listening_hash_;
  std::uint32_t lhash2_ = 0, lhash2_mask_ = 0, listen_stride_ = 0, listen_head_ = 0;
  // UDP
  std::optional<std::uint32_t> net_udp_table_;
  std::vector<GuestVirt> udp_tables_;
  std::uint32_t udp_hash_ = 0, udp_mask_ = 0, udp_stride_ = 0, udp_head_ = 0;
  // others
  std::vector<SocketTable> fixed_;  // tables that are themselves symbols
  std::optional<std::uint32_t> net_unix_, net_packet_;
  GuestVirt nl_table_;
  std::uint32_t nl_stride_ = 0, nl_table_hash_ = 0, nl_node_ = 0, bucket_count_ = 0, buckets_ = 0;
};

}  // namespace vmsight
