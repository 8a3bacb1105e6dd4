#include "state/records.h"

namespace vmsight {
namespace {

constexpr Field<NetAddress> address_fields[] = {
    field<&NetAddress::family>("family", "", "inet, inet6"),
    field<&NetAddress::local>("local", "", "the address"),
    field<&NetAddress::prefix>("prefixlen", "bits", "of the network"),
    field<&NetAddress::peer>("peer", "", "of a point-to-point address"),
    field<&NetAddress::broadcast>("broadcast", "", "broadcast address"),
    field<&NetAddress::scope>("scope", "", "global, link, host ..."),
    field<&NetAddress::label>("label", "", "of IPv4"),
    field<&NetAddress::flags>("flags", "", "secondary, tentative, dynamic ..."),
    field<&NetAddress::valid_life_time>("valid_life_time", "s", "4294967295 for ever"),
    field<&NetAddress::preferred_life_time>("preferred_life_time", "s", "4294967295 for ever"),
};

constexpr Field<NetDevice> device_fields[] = {
    changing<&NetDevice::name>("name", "", "of the device"),
    telling<&NetDevice::netns>("netns", "", "network namespace"),
    changing<&NetDevice::hwaddr>("hwaddr", "", "address of the hardware"),
    changing<&NetDevice::flags>("flags", "", "UP, BROADCAST ..."),
    changing<&NetDevice::mtu>("mtu", "bytes", "largest packet"),
    changing<&NetDevice::ipv4>("ipv4", "", "addresses/prefixes"),
    changing<&NetDevice::ipv6>("ipv6", "", "addresses/prefixes"),
    field<&NetDevice::rx_bytes>("rx_bytes", "bytes", "received"),
    field<&NetDevice::tx_bytes>("tx_bytes", "bytes", "sent"),
    field<&NetDevice::rx_packets>("rx_packets", "", "received"),
    field<&NetDevice::tx_packets>("tx_packets", "", "sent"),
    telling<&NetDevice::ifindex>("ifindex", "", "number in its namespace"),
    field<&NetDevice::addresses>("addresses", "", "with all that is known of them"),
    field<&NetDevice::link_type>("link_type", "", "ether, loopback, ipip ..."),
    field<&NetDevice::operstate>("operstate", "", "UP, DOWN, UNKNOWN ..."),
    field<&NetDevice::linkmode>("linkmode", "", "DEFAULT, DORMANT"),
    field<&NetDevice::broadcast>("broadcast", "",
                                 "of the hardware; of a point-to-point link, its peer"),
    field<&NetDevice::kind>("kind", "", "vlan, veth ...; empty for hardware"),
    field<&NetDevice::qdisc>("qdisc", "", "queueing discipline"),
    field<&NetDevice::tx_queue_length>("txqlen", "", "packets that may wait"),
    field<&NetDevice::group>("group", "", "number of its group"),
    field<&NetDevice::alias>("ifalias", "", "description"),
    field<&NetDevice::alternative_names>("altnames", "", "alternative names"),
    field<&NetDevice::master_index>("master_index", "",
                                    "of the bridge or bond it is a port of, else 0"),
    field<&NetDevice::master>("master", "", "its name"),
    field<&NetDevice::link_index>("link_index", "", "of the device it works on, or its other end"),
    field<&NetDevice::link>("link", "", "its name, if it is in the same namespace"),
    field<&NetDevice::link_netns>("link_netns", "", "its namespace, if another"),
    field<&NetDevice::link_netnsid>("link_netnsid", "", "what that is called here"),
};
constexpr Kind<NetDevice> device_table{.part = part_net_devices,
                                       .key = "net_devices",
                                       .name = "device",
                                       .added = "added",
                                       .removed = "removed",
                                       .meaning = "network devices of all network namespaces",
                                       .records = &State::net_devices,
                                       .fields = device_fields};

}  // namespace

const Kind<NetDevice>& kind(const NetDevice*) { return device_table; }
std::span<const Field<NetAddress>> fields_of(const NetAddress&) { return address_fields; }

}  // namespace vmsight
