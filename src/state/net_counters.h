// Traffic counters of network devices. The kernel asks the driver for them; there is no one place.
//
//   driver                         where its counters are
//   most simple ones               net_device.stats
//   bridges, tunnels, tun          net_device.stats + per-CPU tstats
//   lo, dummy                      per-CPU lstats
//   veth                           per-CPU tstats or lstats of both ends, and XDP queues
//   vlan, macvlan                  per-CPU, in the device's private part
//   virtio_net                     its queues: see virtio_net.h
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "state/context.h"
#include "state/modules.h"
#include "state/virtio_net.h"

namespace vmsight {

class NetCounters {
 public:
  static Result<NetCounters> resolve(Kernel& kernel);

  enum class Driver : std::uint8_t {
    plain,
    per_cpu_type,
    tstats,
    tun,
    loopback,
    dummy,
    veth,
    bridge,
    vlan,
    macvlan,
    virtio_net,
    unknown,
  };
  /// What one view knows of the drivers it met, and what it may still spend.
  struct View {
    struct Met {
      GuestVirt operations;  // net_device_ops: one a driver
      Driver driver = Driver::unknown;
      std::string_view module;  // "" if built in
    };
    std::vector<Met> drivers;
    std::size_t reads_left = 1u << 22;  // bounds what forged numbers of queues cost
  };

  /// Sets the counters of `into`. Leaves them empty, with a problem, for a driver that keeps them
  /// where we cannot find them.
  void read(Context& context, GuestVirt device, View& view, NetDevice& into) const;

 private:
  struct PerCpu {  // offsets in one CPU's counters
    std::uint32_t rx_packets = 0, rx_bytes = 0, tx_packets = 0, tx_bytes = 0;
  };
  struct VethQueue {
    std::uint32_t size = 0, packets = 0, bytes = 0;
  };
  static PerCpu resolve_per_cpu(Kernel& kernel, std::string_view type);

  View::Met driver_of(Context& context, GuestVirt operations, View& view) const;
  Driver classify(Reader& reader, GuestVirt operations, std::string_view module) const;
  std::optional<Traffic> count(Context& context, GuestVirt device, Driver driver, View& view) const;
  std::optional<Traffic> count_by_type(Context& context, GuestVirt device) const;
  std::optional<Traffic> count_veth(Context& context, GuestVirt device, View& view) const;
  std::optional<Traffic> count_bridge(Context& context, GuestVirt device) const;
  std::optional<Traffic> count_tun(Context& context, GuestVirt device) const;
  /// Where a driver's private part has per-CPU counters, for kernels whose modules have no types:
  /// a pointer that must be there too confirms it.
  struct Derived {
    std::uint32_t counters = 0, proof = 0;
    GuestVirt expected;
  };
  std::optional<Traffic> count_private(Context& context, GuestVirt device, std::string_view module,
                                       std::string_view type, std::string_view member,
                                       const Derived& derived) const;
  GuestVirt lower_device(Reader& reader, GuestVirt device) const;
  Traffic veth_queues(Context& context, GuestVirt device, View& view) const;
  const std::optional<VethQueue>& veth_queue(Kernel& kernel) const;
  Traffic plain(Reader& reader, GuestVirt device) const;
  Traffic per_cpu(Context& context, GuestVirt area, const PerCpu& at) const;
  std::uint64_t stat_type(Reader& reader, GuestVirt device) const;
  GuestVirt per_cpu_area(Reader& reader, GuestVirt device) const {
    return reader.pointer(device + area_);
  }

  ModulesReader modules_;
  VirtioNet virtio_;
  std::uint32_t ops_ = 0, get_stats_ = 0, get_stats64_ = 0;
  std::uint32_t area_ = 0, stats_ = 0, num_rx_queues_ = 0;
  std::uint32_t private_ = 0;  // netdev_priv()
  std::uint32_t lower_ = 0, adjacent_device_ = 0, adjacent_list_ = 0;
  std::uint32_t tun_counters_ = 0;   // tun_struct.pcpu_stats of Linux 5.10
  std::uint32_t bridge_owner_ = 0;   // net_bridge.dev, where there is no BTF of modules
  std::optional<Member> stat_type_;  // newer kernels
  PerCpu plain_, tstats_, dstats_, lstats_, vlan_;
  // Learnt when the first such device is met: its module may be loaded after we attached.
  mutable std::optional<VethQueue> veth_queue_;
  mutable bool veth_asked_ = false;
  GuestVirt tstats_function_, tunnel_function_;
  std::vector<std::pair<GuestVirt, Driver>> built_in_;  // drivers that are not modules
};

}  // namespace vmsight
