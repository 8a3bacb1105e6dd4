// Network devices of all network namespaces: names, flags, addresses, counters.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "state/context.h"
#include "state/net_addresses.h"
#include "state/net_counters.h"
#include "state/net_links.h"
#include "state/net_namespaces.h"

namespace vmsight {

/// What decides the flags that `ip link` shows.
struct LinkState {
  std::uint32_t flags = 0;      // net_device.flags: IFF_* set by the administrator
  std::uint32_t global = 0;     // net_device.gflags: promiscuity and allmulti asked for
  std::uint64_t state = 0;      // net_device.state: __LINK_STATE_* bits
  std::uint32_t operstate = 0;  // IF_OPER_*
};
/// Names in the order of `ip link`; views of static strings.
std::vector<std::string_view> link_flags(const LinkState& link);

class NetDevicesReader {
 public:
  static Result<NetDevicesReader> resolve(Kernel& kernel);
  void read(Context& context) const;

 private:
  /// What one view spends at most, whatever a guest forges.
  struct View {
    NetCounters::View counters;
    NetLinksReader::View links;
    std::size_t devices_left = 1u << 17, addresses_left = 1u << 19;
  };
  bool read_all(Context& context) const;
  bool read_namespace(Context& context, const NetNamespace& ns, View& view) const;
  bool read_device(Context& context, GuestVirt device, GuestVirt net, View& view,
                   NetDevice& into) const;
  std::string_view read_hardware_address(Context& context, GuestVirt device) const;

  NetNamespaces namespaces_;
  NetCounters counters_;
  NetLinksReader links_;
  NetAddressesReader addresses_;
  Member name_, flags_, gflags_, operstate_, mtu_, ifindex_, addr_len_;
  std::uint32_t dev_base_ = 0, dev_list_ = 0, state_ = 0, dev_addr_ = 0, net_ = 0;
};

}  // namespace vmsight
