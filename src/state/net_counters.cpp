#include "state/net_counters.h"

#include <fmt/format.h>

#include <string>

#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::uint64_t type_tstats = 2, type_dstats = 3;  // enum netdev_stat_type
constexpr std::size_t max_drivers = 256;                   // bounds what forged devices cost
// Linux 5.10: vlan_dev_priv { number, map[8], number, mappings[16], protocol, id, flags, real_dev,
// address, dent, vlan_pcpu_stats }, macvlan_dev { dev, list, hlist, port, lowerdev, accel_priv,
// pcpu_stats }.
constexpr std::uint32_t vlan_real_device = 176, vlan_counters = 200, macvlan_counters = 64;
constexpr std::uint32_t tun_owner = 256 * 8 + 16;  // tun_struct.dev
constexpr std::uint32_t veth_queues_offset = 24;   // veth_priv { peer, dropped, _xdp_prog, rq }

struct Name {
  NetCounters::Driver driver;
  std::string_view module, operations;  // operations: the symbol where it is built in
};
constexpr Name driver_names[] = {
    {NetCounters::Driver::virtio_net, "virtio_net", "virtnet_netdev"},
    {NetCounters::Driver::veth, "veth", "veth_netdev_ops"},
    {NetCounters::Driver::dummy, "dummy", "dummy_netdev_ops"},
    {NetCounters::Driver::bridge, "bridge", "br_netdev_ops"},
    {NetCounters::Driver::tun, "tun", "tun_netdev_ops"},
    {NetCounters::Driver::tun, "tun", "tap_netdev_ops"},
    {NetCounters::Driver::vlan, "8021q", "vlan_netdev_ops"},
    {NetCounters::Driver::macvlan, "macvlan", "macvlan_netdev_ops"},
    {NetCounters::Driver::loopback, "", "loopback_ops"},
};

}  // namespace

NetCounters::PerCpu NetCounters::resolve_per_cpu(Kernel& kernel, std::string_view type) {
  const auto offset = [&](std::string_view name) {
    return kernel.member(type, name).value_or(Member{}).offset;
  };
  return {offset("rx_packets"), offset("rx_bytes"), offset("tx_packets"), offset("tx_bytes")};
}

Result<NetCounters> NetCounters::resolve(Kernel& kernel) {
  Members members(kernel);
  NetCounters self;
  VMSIGHT_TRY(self.modules_, ModulesReader::resolve(kernel));
  self.ops_ = members.offset("net_device", "netdev_ops");
  self.get_stats_ = members.offset("net_device_ops", "ndo_get_stats");
  self.get_stats64_ = members.offset("net_device_ops", "ndo_get_stats64");
  self.area_ = members.offset("net_device", "lstats");  // a union of all per-CPU kinds
  self.stats_ = members.offset("net_device", "stats");
  self.num_rx_queues_ = members.offset("net_device", "num_rx_queues");
  self.stat_type_ = kernel.member("net_device", "pcpu_stat_type");
  // netdev_priv(): a member of newer kernels; before, what follows at the next 32 bytes.
  self.private_ = members.optional_offset("net_device", "priv")
                      .value_or((members.size("net_device") + 31) & ~31U);
  self.lower_ = members.offset("net_device", "adj_list.lower");
  self.adjacent_device_ = members.offset("netdev_adjacent", "dev");
  self.adjacent_list_ = members.offset("netdev_adjacent", "list");
  self.bridge_owner_ = ((2 * members.size("spinlock") + 7) & ~7U) + 16;
  const std::uint32_t tun_lock = tun_owner + 8 + 8 + 12 + 60 + 16 + 8;
  const std::uint32_t tun_flows = (tun_lock + members.size("spinlock") + 7) & ~7U;
  self.tun_counters_ = tun_flows + 1024 * 8 + members.size("timer_list") + 48;
  self.plain_ = resolve_per_cpu(kernel, "net_device_stats");
  self.tstats_ = resolve_per_cpu(kernel, "pcpu_sw_netstats");
  self.dstats_ = resolve_per_cpu(kernel, "pcpu_dstats");
  self.vlan_ = resolve_per_cpu(kernel, "vlan_pcpu_stats");
  const std::uint32_t packets = members.offset("pcpu_lstats", "packets");
  const std::uint32_t bytes = members.offset("pcpu_lstats", "bytes");
  self.lstats_ = {packets, bytes, packets, bytes};
  self.tstats_function_ = kernel.symbol("dev_get_tstats64").value_or(GuestVirt());
  self.tunnel_function_ = kernel.symbol("ip_tunnel_get_stats64").value_or(GuestVirt());
  for (const Name& name : driver_names) {
    if (const auto ops = kernel.symbol(name.operations)) {
      self.built_in_.emplace_back(*ops, name.driver);
    }
  }
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

void NetCounters::read(Context& context, GuestVirt device, View& view, NetDevice& into) const {
  Reader& reader = context.reader;
  const View::Met met = driver_of(context, reader.pointer(device + ops_), view);
  std::optional<Traffic> traffic;
  if (reader.ok()) traffic = count(context, device, met.driver, view);
  if (traffic && reader.ok()) {
    into.rx_packets = traffic->rx_packets;
    into.rx_bytes = traffic->rx_bytes;
    into.tx_packets = traffic->tx_packets;
    into.tx_bytes = traffic->tx_bytes;
    return;
  }
  reader.clear_fault();
  context.state.problem(
      "net_devices",
      fmt::format("{}: where its driver {} keeps counters is not known", into.name, met.module));
}

NetCounters::View::Met NetCounters::driver_of(Context& context, GuestVirt operations,
                                              View& view) const {
  for (const View::Met& met : view.drivers) {
    if (met.operations == operations) return met;
  }
  if (view.drivers.size() == max_drivers || !context.reader.ok()) return {};
  const std::string_view module = modules_.owner_of(context, operations);
  view.drivers.push_back({operations, classify(context.reader, operations, module), module});
  return view.drivers.back();
}

/// In the order of dev_get_stats() of net/core/dev.c: what a driver's own function does must be
/// known; without one the counters are where the core keeps them.
NetCounters::Driver NetCounters::classify(Reader& reader, GuestVirt operations,
                                          std::string_view module) const {
  const GuestVirt get_stats64 = reader.pointer(operations + get_stats64_);
  if (get_stats64 == GuestVirt()) {
    const GuestVirt get_stats = reader.pointer(operations + get_stats_);
    return get_stats == GuestVirt() ? Driver::per_cpu_type : Driver::plain;
  }
  if (get_stats64 == tstats_function_ || get_stats64 == tunnel_function_) return Driver::tstats;
  for (const auto& [ops, driver] : built_in_) {
    if (ops == operations) return driver;
  }
  for (const Name& name : driver_names) {
    if (!module.empty() && name.module == module) return name.driver;
  }
  return Driver::unknown;
}

std::optional<Traffic> NetCounters::count(Context& context, GuestVirt device, Driver driver,
                                          View& view) const {
  Reader& reader = context.reader;
  const GuestVirt area = per_cpu_area(reader, device);
  switch (driver) {
    case Driver::plain:
      return plain(reader, device);
    case Driver::per_cpu_type:
      return count_by_type(context, device);
    case Driver::loopback:
      return per_cpu(context, area, lstats_);
    case Driver::virtio_net:
      return virtio_.read(context, device, device + private_, view.reads_left);
    case Driver::veth:
      return count_veth(context, device, view);
    case Driver::bridge:
      return count_bridge(context, device);
    case Driver::vlan:
      return count_private(context, device, "8021q", "vlan_dev_priv", "vlan_pcpu_stats",
                           {vlan_counters, vlan_real_device, lower_device(reader, device)});
    case Driver::macvlan:
      return count_private(context, device, "macvlan", "macvlan_dev", "pcpu_stats",
                           {macvlan_counters, 0, device});
    case Driver::tun:
      if (area == GuestVirt()) return count_tun(context, device);
      [[fallthrough]];
    case Driver::tstats: {
      if (area == GuestVirt()) return std::nullopt;
      Traffic sum = plain(reader, device);
      return sum += per_cpu(context, area, tstats_);
    }
    case Driver::dummy: {
      const Traffic sent = per_cpu(context, area, lstats_);  // it only ever swallows packets
      return Traffic{0, 0, sent.tx_packets, sent.tx_bytes};
    }
    case Driver::unknown:
      break;
  }
  return std::nullopt;
}

std::optional<Traffic> NetCounters::count_by_type(Context& context, GuestVirt device) const {
  Reader& reader = context.reader;
  const std::uint64_t type = stat_type(reader, device);
  Traffic sum = plain(reader, device);
  if (type == type_tstats) sum += per_cpu(context, per_cpu_area(reader, device), tstats_);
  if (type == type_dstats) sum += per_cpu(context, per_cpu_area(reader, device), dstats_);
  return sum;
}

/// veth_get_stats64(): what an end receives is what its peer sent; packets that went through
/// XDP or NAPI are counted by the receiving queues instead.
std::optional<Traffic> NetCounters::count_veth(Context& context, GuestVirt device,
                                               View& view) const {
  Reader& reader = context.reader;
  const auto sent = [&](GuestVirt end) {
    const bool typed = stat_type(reader, end) == type_tstats;
    return per_cpu(context, per_cpu_area(reader, end), typed ? tstats_ : lstats_);
  };
  const GuestVirt peer = reader.pointer(device + private_);
  const Traffic own = sent(device), own_queues = veth_queues(context, device, view);
  Traffic sum{own_queues.rx_packets, own_queues.rx_bytes, own.tx_packets, own.tx_bytes};
  if (peer == GuestVirt()) return sum;
  if (reader.pointer(peer + private_) != device) return std::nullopt;
  const Traffic theirs = sent(peer), their_queues = veth_queues(context, peer, view);
  return sum +=
         {theirs.tx_packets, theirs.tx_bytes, their_queues.rx_packets, their_queues.rx_bytes};
}

Traffic NetCounters::veth_queues(Context& context, GuestVirt device, View& view) const {
  Reader& reader = context.reader;
  const std::optional<VethQueue>& at = veth_queue(context.kernel);
  Traffic sum;
  if (!at) return sum;  // Linux 5.10: these count only with an XDP program
  const GuestVirt queues = reader.pointer(device + private_ + veth_queues_offset);
  const std::uint32_t count = reader.u32(device + num_rx_queues_);
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
    if (view.reads_left == 0) reader.set_fault(device);
    view.reads_left -= view.reads_left != 0;
    const GuestVirt queue = queues + std::uint64_t{i} * at->size;
    const Unrecorded moving(reader);
    sum.rx_packets += reader.u64(queue + at->packets);
    sum.rx_bytes += reader.u64(queue + at->bytes);
  }
  return sum;
}

const std::optional<NetCounters::VethQueue>& NetCounters::veth_queue(Kernel& kernel) const {
  if (!veth_asked_) {
    veth_asked_ = true;
    Members members(kernel);
    const VethQueue queue{members.size("veth:veth_rq"),
                          members.offset("veth:veth_rq", "stats.vs.xdp_packets"),
                          members.offset("veth:veth_rq", "stats.vs.xdp_bytes")};
    if (members.check()) veth_queue_ = queue;
  }
  return veth_queue_;
}

/// Kernels without dev_get_tstats64(): net_bridge { lock, hash_lock, port_list, dev, stats }.
std::optional<Traffic> NetCounters::count_bridge(Context& context, GuestVirt device) const {
  Reader& reader = context.reader;
  const GuestVirt owner = device + private_ + bridge_owner_;
  if (reader.pointer(owner) != device) return std::nullopt;
  Traffic sum = plain(reader, device);
  return sum += per_cpu(context, reader.pointer(owner + 8), tstats_);
}

/// Linux 5.10: tun_struct { queues[256], numbers[4], dev, features, numbers[3], tap_filter of 60
/// bytes, sock_fprog, attached, msg_enable, lock, flows[1024], gc timer, ageing, numdisabled,
/// disabled, security, flow_count, batched, pcpu_stats }.
std::optional<Traffic> NetCounters::count_tun(Context& context, GuestVirt device) const {
  const GuestVirt own = device + private_;
  Reader& reader = context.reader;
  if (reader.pointer(own + tun_owner) != device) return std::nullopt;
  constexpr PerCpu at{0, 8, 16, 24};  // tun_pcpu_stats
  return per_cpu(context, reader.pointer(own + tun_counters_), at);
}

std::optional<Traffic> NetCounters::count_private(Context& context, GuestVirt device,
                                                  std::string_view module, std::string_view type,
                                                  std::string_view member,
                                                  const Derived& derived) const {
  std::optional<Member> area = context.kernel.member(type, member);
  if (!area) area = context.kernel.member(fmt::format("{}:{}", module, type), member);
  Reader& reader = context.reader;
  const GuestVirt own = device + private_;
  if (area) return per_cpu(context, reader.pointer(own + area->offset), vlan_);
  if (derived.expected == GuestVirt() || reader.pointer(own + derived.proof) != derived.expected)
    return std::nullopt;
  return per_cpu(context, reader.pointer(own + derived.counters), vlan_);
}

/// What a device works on, as the core of the network knows it; null if nothing.
GuestVirt NetCounters::lower_device(Reader& reader, GuestVirt device) const {
  const GuestVirt head = device + lower_, node = reader.pointer(head);
  return node == head ? GuestVirt() : reader.pointer(node - adjacent_list_ + adjacent_device_);
}

Traffic NetCounters::plain(Reader& reader, GuestVirt device) const {
  const GuestVirt at = device + stats_;
  const Unrecorded moving(reader);
  return {reader.u64(at + plain_.rx_packets), reader.u64(at + plain_.rx_bytes),
          reader.u64(at + plain_.tx_packets), reader.u64(at + plain_.tx_bytes)};
}

Traffic NetCounters::per_cpu(Context& context, GuestVirt area, const PerCpu& at) const {
  Traffic sum;
  Reader& reader = context.reader;
  if (area == GuestVirt()) return sum;  // not allocated before the device is first used
  const Unrecorded moving(reader);
  for (std::size_t cpu = 0; cpu < context.kernel.per_cpu_offsets().size() && reader.ok(); ++cpu) {
    const GuestVirt own = context.kernel.per_cpu(area, cpu);
    sum += {reader.u64(own + at.rx_packets), reader.u64(own + at.rx_bytes),
            reader.u64(own + at.tx_packets), reader.u64(own + at.tx_bytes)};
  }
  return sum;
}

std::uint64_t NetCounters::stat_type(Reader& reader, GuestVirt device) const {
  return stat_type_ ? reader.value(device, *stat_type_) : 0;
}

}  // namespace vmsight
