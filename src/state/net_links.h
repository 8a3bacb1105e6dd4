// What `ip link` says of a network device beyond its name and flags.
//
//   net_device --rtnl_link_ops--> kind: "vlan", "veth", ... (none: hardware)
//      |  adj_list.upper --> netdev_adjacent{master} --> the bridge or bond it is a port of
//      |  adj_list.lower --> netdev_adjacent         --> what a vlan or macvlan works on
//      |  private part   --> veth: its other end; tunnels: the device they are bound to
//      |  name_node.list --> netdev_name_node        --> alternative names
//      |  qdisc --> ops.id
//
// What a device works on is asked of its driver (ndo_get_iflink); here it is told by the kind.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "state/context.h"
#include "state/members.h"

namespace vmsight {

/// "ether", "loopback", "ipip" ...: ARPHRD_* as iproute2 calls them; "" for a number without a
/// name. Views of static strings, as the next gives.
std::string_view link_type_name(unsigned type);
/// "UP", "DOWN" ...: IF_OPER_*; "UNKNOWN" for a number that is none.
std::string_view operstate_name(unsigned state);

class NetLinksReader {
 public:
  static NetLinksReader resolve(Members& members);

  /// What one view spends at most on lists, whatever a guest forges.
  struct View {
    std::size_t entries_left = 1u << 20;
    std::size_t ids_left = 1u << 20;
    /// By namespace: what it calls others, by their addresses.
    std::unordered_map<std::uint64_t, std::unordered_map<std::uint64_t, std::int32_t>> ids;
  };
  void read(Context& context, GuestVirt device, View& view, NetDevice& into) const;

 private:
  /// What a device works on, or its other end.
  struct Link {
    unsigned index = 0;
    GuestVirt device;  // null if only the index is known
    GuestVirt net;     // where that is
  };
  /// Where a tunnel keeps the device it is bound to.
  struct Tunnel {
    Offset device = 0, net = 0, link = 0;
  };

  void read_plain(Context& context, GuestVirt device, NetDevice& into) const;
  void read_alternative_names(Context& context, GuestVirt device, View& view,
                              NetDevice& into) const;
  void read_link(Context& context, GuestVirt device, View& view, NetDevice& into) const;
  std::optional<Link> find_link(Context& context, GuestVirt device, std::string_view kind,
                                View& view) const;
  std::optional<Link> find_end(Reader& reader, GuestVirt device) const;
  std::optional<Link> find_lower(Reader& reader, GuestVirt device, View& view) const;
  std::optional<Link> find_tunnel(Context& context, GuestVirt device, std::string_view module,
                                  std::string_view type) const;
  std::optional<Tunnel> tunnel(Kernel& kernel, std::string_view module,
                               std::string_view type) const;
  GuestVirt find_master(Reader& reader, GuestVirt device, View& view) const;
  std::optional<std::int32_t> find_netnsid(Reader& reader, GuestVirt net, GuestVirt other,
                                           View& view) const;
  void read_netnsids(Reader& reader, GuestVirt net, View& view,
                     std::unordered_map<std::uint64_t, std::int32_t>& into) const;
  std::string_view text(Context& context, GuestVirt at, std::size_t size) const;
  std::string_view name(Context& context, GuestVirt device) const;
  unsigned index(Reader& reader, GuestVirt device) const {
    return static_cast<unsigned>(reader.value(device, ifindex_));
  }

  Member name_, ifindex_, type_, operstate_, link_mode_, group_, queue_length_, addr_len_;
  Member master_flag_;
  Offset state_ = 0, broadcast_ = 0, net_ = 0, link_ops_ = 0, kind_ = 0, ops_ = 0, get_iflink_ = 0;
  Offset qdisc_ = 0, qdisc_ops_ = 0, qdisc_id_ = 0, private_ = 0;
  Offset alias_ = absent, alias_text_ = absent;
  Offset name_node_ = absent, name_list_ = absent, other_name_ = absent;
  Offset upper_ = 0, lower_ = 0, adjacent_device_ = 0, adjacent_list_ = 0;
  Offset inum_ = 0, netns_ids_ = 0, node_shift_ = 0, node_slots_ = 0;
};

}  // namespace vmsight
