#include "state/net_devices.h"

#include <fmt/format.h>

#include "state/lists.h"
#include "state/members.h"
#include "state/net_address.h"
#include "state/process_context.h"
#include "state/retry.h"

namespace vmsight {
namespace {

constexpr std::size_t max_hardware_address = 32;  // MAX_ADDR_LEN

// include/uapi/linux/if.h, in the order in which `ip link` prints them.
struct Flag {
  std::uint32_t bit;
  std::string_view name;
};
constexpr Flag flag_names[] = {
    {1u << 3, "LOOPBACK"},   {1u << 1, "BROADCAST"},  {1u << 4, "POINTOPOINT"},
    {1u << 12, "MULTICAST"}, {1u << 7, "NOARP"},      {1u << 9, "ALLMULTI"},
    {1u << 8, "PROMISC"},    {1u << 10, "MASTER"},    {1u << 11, "SLAVE"},
    {1u << 2, "DEBUG"},      {1u << 15, "DYNAMIC"},   {1u << 14, "AUTOMEDIA"},
    {1u << 13, "PORTSEL"},   {1u << 5, "NOTRAILERS"}, {1u << 0, "UP"},
    {1u << 16, "LOWER_UP"},  {1u << 17, "DORMANT"},   {1u << 18, "ECHO"},
};
constexpr std::uint32_t iff_up = 1u << 0, iff_running = 1u << 6, iff_promisc = 1u << 8,
                        iff_allmulti = 1u << 9, iff_lower_up = 1u << 16, iff_dormant = 1u << 17;

// enum netdev_state_t, include/linux/netdevice.h
constexpr std::uint64_t link_start = 1u << 0, link_no_carrier = 1u << 2, link_dormant = 1u << 4;
constexpr std::uint32_t oper_unknown = 0, oper_up = 6;

/// What dev_get_flags() of net/core/dev.c tells user space.
std::uint32_t user_flags(const LinkState& link) {
  const std::uint32_t asked = iff_promisc | iff_allmulti;
  std::uint32_t flags = link.flags & ~(asked | iff_running | iff_lower_up | iff_dormant);
  flags |= link.global & asked;
  if ((link.state & link_start) == 0) return flags;
  if (link.operstate == oper_up || link.operstate == oper_unknown) flags |= iff_running;
  if ((link.state & link_no_carrier) == 0) flags |= iff_lower_up;
  if ((link.state & link_dormant) != 0) flags |= iff_dormant;
  return flags;
}

/// A tunnel keeps the number of what it works on; the name is that of the device with this number.
void name_links(std::span<NetDevice> of_one_namespace) {
  std::unordered_map<unsigned, std::string_view> names;
  for (const NetDevice& device : of_one_namespace) names.emplace(device.ifindex, device.name);
  for (NetDevice& device : of_one_namespace) {
    if (!device.link.empty() || !device.link_index || device.link_netns) continue;
    if (*device.link_index == device.ifindex) continue;
    const auto found = names.find(*device.link_index);
    if (found != names.end()) device.link = found->second;
  }
}

}  // namespace

std::vector<std::string_view> link_flags(const LinkState& link) {
  const std::uint32_t flags = user_flags(link);
  std::vector<std::string_view> names;
  names.reserve(6);
  if ((flags & iff_up) != 0 && (flags & iff_running) == 0) names.push_back("NO-CARRIER");
  for (const Flag& flag : flag_names) {
    if ((flags & flag.bit) != 0) names.push_back(flag.name);
  }
  return names;
}

Result<NetDevicesReader> NetDevicesReader::resolve(Kernel& kernel) {
  Members members(kernel);
  NetDevicesReader self;
  VMSIGHT_TRY(self.namespaces_, NetNamespaces::resolve(kernel));
  VMSIGHT_TRY(self.counters_, NetCounters::resolve(kernel));
  self.dev_base_ = members.offset("net", "dev_base_head");
  self.dev_list_ = members.offset("net_device", "dev_list");
  self.name_ = members.member("net_device", "name");
  self.flags_ = members.member("net_device", "flags");
  self.gflags_ = members.member("net_device", "gflags");
  self.operstate_ = members.member("net_device", "operstate");
  self.mtu_ = members.member("net_device", "mtu");
  self.ifindex_ = members.member("net_device", "ifindex");
  self.addr_len_ = members.member("net_device", "addr_len");
  self.state_ = members.offset("net_device", "state");
  self.net_ = members.offset("net_device", "nd_net");
  self.dev_addr_ = members.offset("net_device", "dev_addr");
  self.links_ = NetLinksReader::resolve(members);
  self.addresses_ = NetAddressesReader::resolve(members);
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

void NetDevicesReader::read(Context& context) const {
  read_whole(context, context.state.net_devices, [&] { return read_all(context); });
}

bool NetDevicesReader::read_all(Context& context) const {
  View view;
  bool whole = true;
  for (const NetNamespace& ns : namespaces_.list(context, "net_devices")) {
    whole = read_namespace(context, ns, view) && whole;
  }
  return whole;
}

bool NetDevicesReader::read_namespace(Context& context, const NetNamespace& ns, View& view) const {
  Reader& reader = context.reader;
  std::size_t unreadable = 0;
  const std::size_t before = context.state.net_devices.size();
  const bool complete = walk_list(reader, ns.net + dev_base_, [&](GuestVirt node) {
    const bool enough =
        view.devices_left == 0 || is_full(context.state.net_devices, context.arena());
    if (enough) return reader.set_fault(node);
    --view.devices_left;
    NetDevice record;
    record.netns = ns.inode;
    if (read_device(context, node - dev_list_, ns.net, view, record)) {
      counters_.read(context, node - dev_list_, view.counters, record);
      context.state.net_devices.push_back(std::move(record));
    } else {
      ++unreadable;
    }
    reader.clear_fault();
  });
  name_links(std::span(context.state.net_devices).subspan(before));
  if (!complete) {
    context.state.problem("net_devices", fmt::format("the devices of namespace {} break at {}",
                                                     ns.inode, reader.fault().value_or(ns.net)));
    reader.clear_fault();
  }
  if (unreadable != 0) {
    context.state.problem("net_devices", fmt::format("{} devices of namespace {} are not readable",
                                                     unreadable, ns.inode));
  }
  return complete && unreadable == 0;
}

/// False if it cannot be read, or is not (any more) a device of this namespace.
bool NetDevicesReader::read_device(Context& context, GuestVirt device, GuestVirt net, View& view,
                                   NetDevice& into) const {
  Reader& reader = context.reader;
  const std::span<char> room = context.arena().allocate(std::min(name_.size, 16U));
  into.name = context.arena().shrink(room, reader.c_string(device + name_.offset, room).size());
  LinkState link;
  link.flags = static_cast<std::uint32_t>(reader.value(device, flags_));
  link.global = static_cast<std::uint32_t>(reader.value(device, gflags_));
  link.operstate = static_cast<std::uint32_t>(reader.value(device, operstate_));
  link.state = reader.u64(device + state_);
  into.flags = link_flags(link);
  into.mtu = reader.value(device, mtu_);
  into.ifindex = static_cast<unsigned>(reader.value(device, ifindex_));
  into.hwaddr = read_hardware_address(context, device);
  links_.read(context, device, view.links, into);
  addresses_.read(context, device, view.addresses_left, into);
  return reader.pointer(device + net_) == net && reader.ok();
}

std::string_view NetDevicesReader::read_hardware_address(Context& context, GuestVirt device) const {
  std::array<std::byte, max_hardware_address> bytes;
  const auto length = std::min<std::size_t>(
      static_cast<std::size_t>(context.reader.value(device, addr_len_)), bytes.size());
  const std::span<std::byte> used(bytes.data(), length);
  context.reader.copy(context.reader.pointer(device + dev_addr_), used);
  return format_hardware_address(context.arena(), used);
}

}  // namespace vmsight
