#include "state/socket_tables.h"

#include <fmt/format.h>

#include <utility>

namespace vmsight {
namespace {

// UNIX_HASH_SIZE of include/net/af_unix.h: half for bound sockets, half for the others. Only
// newer kernels reach the array through a pointer, and neither says how long it is.
constexpr std::uint64_t unix_buckets = 512;
constexpr std::uint64_t netlink_protocols = 32;  // MAX_LINKS
// Larger than any table the kernel makes by itself.
constexpr std::uint64_t max_buckets = 1u << 24;

}  // namespace

Result<SocketTables> SocketTables::resolve(Kernel& kernel, std::uint32_t node) {
  Members members(kernel);
  SocketTables self;
  self.node_ = node;
  self.resolve_tcp(members);
  self.resolve_udp(members);
  self.resolve_others(members);
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

void SocketTables::resolve_tcp(Members& members) {
  net_hashinfo_ = members.optional_offset("net", "ipv4.tcp_death_row.hashinfo");
  if (!net_hashinfo_) hashinfo_ = members.symbol("tcp_hashinfo");
  ehash_ = members.offset("inet_hashinfo", "ehash");
  ehash_mask_ = members.offset("inet_hashinfo", "ehash_mask");
  ehash_stride_ = members.size("inet_ehash_bucket");
  ehash_head_ = members.offset("inet_ehash_bucket", "chain");
  // Where both exist, the links of lhash2 are not those of other tables.
  listening_hash_ = members.kernel().member("inet_hashinfo", "listening_hash");
  lhash2_ = members.offset("inet_hashinfo", "lhash2");
  lhash2_mask_ = members.offset("inet_hashinfo", "lhash2_mask");
  listen_stride_ = members.size("inet_listen_hashbucket");
  listen_head_ = members.offset("inet_listen_hashbucket", "nulls_head");
}

void SocketTables::resolve_udp(Members& members) {
  Kernel& kernel = members.kernel();
  net_udp_table_ = members.optional_offset("net", "ipv4.udp_table");
  for (const char* name : {"udp_table", "udplite_table"}) {
    if (const auto table = kernel.symbol(name)) udp_tables_.push_back(*table);
  }
  udp_hash_ = members.offset("udp_table", "hash");
  udp_mask_ = members.offset("udp_table", "mask");
  udp_stride_ = members.size("udp_hslot");
  udp_head_ = members.offset("udp_hslot", "head");
}

void SocketTables::resolve_others(Members& members) {
  Kernel& kernel = members.kernel();
  const auto fixed = [&](const char* name, const char* symbol, const char* type,
                         const char* array) {
    const auto start = kernel.symbol(symbol);
    const auto member = kernel.member(type, array);
    if (!start || !member) return;
    fixed_.push_back({name, {*start + member->offset, member->count}, node_});
  };
  fixed("raw", "raw_v4_hashinfo", "raw_hashinfo", "ht");
  fixed("raw6", "raw_v6_hashinfo", "raw_hashinfo", "ht");
  fixed("ping", "ping_table", "ping_table", "hash");
  net_unix_ = members.optional_offset("net", "unx.table.buckets");
  if (!net_unix_)
    fixed_.push_back({"unix", {members.symbol("unix_socket_table"), unix_buckets}, node_});
  net_packet_ = members.optional_offset("net", "packet.sklist");
  nl_table_ = members.symbol("nl_table");
  nl_stride_ = members.size("netlink_table");
  nl_table_hash_ = members.offset("netlink_table", "hash.tbl");
  nl_node_ = members.offset("netlink_sock", "node");
  bucket_count_ = members.offset("bucket_table", "size");
  buckets_ = members.offset("bucket_table", "buckets");
}

std::vector<SocketTable> SocketTables::list(Context& context,
                                            std::span<const NetNamespace> namespaces) const {
  Reader& reader = context.reader;
  List list{fixed_, {}};
  reader.clear_fault();
  if (!net_hashinfo_) add_tcp(list, context, hashinfo_);
  for (const GuestVirt table : udp_tables_) {
    // A structure, or since tables can be of one namespace, found there.
    if (!net_udp_table_ || table != udp_tables_.front()) add_udp(list, context, table);
  }
  for (const NetNamespace& ns : namespaces) {
    if (net_hashinfo_) add_tcp(list, context, reader.pointer(ns.net + *net_hashinfo_));
    if (net_udp_table_) add_udp(list, context, reader.pointer(ns.net + *net_udp_table_));
    if (net_unix_) {
      add(list, context, {"unix", {reader.pointer(ns.net + *net_unix_), unix_buckets}, node_});
    }
    if (net_packet_) add(list, context, {"packet", {ns.net + *net_packet_, 1}, node_});
  }
  add_netlink(list, context);
  return std::move(list.tables);
}

void SocketTables::add(List& list, Context& context, const SocketTable& table) const {
  if (context.reader.ok() && table.buckets.count <= max_buckets) {
    const bool is_new = list.known.insert(table.buckets.start.raw()).second;
    if (is_new && table.buckets.start != GuestVirt()) list.tables.push_back(table);
    return;
  }
  context.state.problem("sockets",
                        fmt::format("{}: no table at {}", table.name,
                                    context.reader.fault().value_or(table.buckets.start)));
  context.reader.clear_fault();
}

void SocketTables::add_tcp(List& list, Context& context, GuestVirt hashinfo) const {
  Reader& reader = context.reader;
  SocketTable connections{"tcp", {}, node_, true};
  connections.buckets = {reader.pointer(hashinfo + ehash_),
                         std::uint64_t{reader.u32(hashinfo + ehash_mask_)} + 1, ehash_stride_,
                         ehash_head_};
  add(list, context, connections);
  SocketTable listeners{"tcp listeners", {}, node_};
  if (listening_hash_) {
    listeners.buckets = {hashinfo + listening_hash_->offset, listening_hash_->count, listen_stride_,
                         listen_head_};
  } else {
    listeners.buckets = {reader.pointer(hashinfo + lhash2_),
                         std::uint64_t{reader.u32(hashinfo + lhash2_mask_)} + 1, listen_stride_,
                         listen_head_};
  }
  add(list, context, listeners);
}

void SocketTables::add_udp(List& list, Context& context, GuestVirt table) const {
  Reader& reader = context.reader;
  add(list, context,
      {"udp",
       {reader.pointer(table + udp_hash_), std::uint64_t{reader.u32(table + udp_mask_)} + 1,
        udp_stride_, udp_head_},
       node_});
}

/// One table a protocol. Bit 0 of a bucket is its lock.
void SocketTables::add_netlink(List& list, Context& context) const {
  Reader& reader = context.reader;
  const GuestVirt array = reader.pointer(nl_table_);
  for (std::uint64_t i = 0; i < netlink_protocols; ++i) {
    const GuestVirt table = reader.pointer(array + i * nl_stride_ + nl_table_hash_);
    if (table == GuestVirt()) continue;
    BucketArray buckets{table + buckets_, reader.u32(table + bucket_count_)};
    buckets.head_mask = ~1ULL;
    add(list, context, {"netlink", buckets, nl_node_});
  }
  reader.clear_fault();
}

}  // namespace vmsight
