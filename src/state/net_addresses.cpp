#include "state/net_addresses.h"

#include <fmt/format.h>

#include <algorithm>

#include "state/lists.h"
#include "state/net_address.h"

namespace vmsight {
namespace {

constexpr std::uint32_t for_ever = ~std::uint32_t{0};
// include/uapi/linux/if_addr.h
constexpr std::uint32_t flag_secondary = 0x01, flag_permanent = 0x80;
struct AddressFlag {
  std::uint32_t bit;
  std::string_view name;
};
constexpr AddressFlag address_flag_names[] = {
    {flag_secondary, "secondary"}, {0x02, "nodad"},      {0x04, "optimistic"},
    {0x08, "dadfailed"},           {0x10, "home"},       {0x20, "deprecated"},
    {0x40, "tentative"},           {flag_permanent, ""}, {0x100, "mngtmpaddr"},
    {0x200, "noprefixroute"},      {0x400, "autojoin"},  {0x800, "stable-privacy"},
};
// RT_SCOPE_* of include/uapi/linux/rtnetlink.h, and the kinds of include/net/ipv6.h.
constexpr unsigned scope_global = 0, scope_site = 200, scope_link = 253, scope_host = 254,
                   scope_nowhere = 255;
constexpr std::uint64_t ipv6_host = 0x10, ipv6_link = 0x20, ipv6_site = 0x40;

unsigned ipv6_scope(std::uint64_t kind) {
  if ((kind & ipv6_host) != 0) return scope_host;
  if ((kind & ipv6_link) != 0) return scope_link;
  return (kind & ipv6_site) != 0 ? scope_site : scope_global;
}

}  // namespace

std::vector<std::string_view> address_flags(std::uint32_t flags, bool ipv6) {
  std::vector<std::string_view> names;
  for (const AddressFlag& flag : address_flag_names) {
    const bool set = (flags & flag.bit) != 0;
    if (flag.bit == flag_permanent) {
      if (!set) names.push_back("dynamic");
    } else if (set) {
      names.push_back(flag.bit == flag_secondary && ipv6 ? "temporary" : flag.name);
    }
  }
  return names;
}

std::string_view address_scope(unsigned scope) {
  switch (scope) {
    case scope_global:
      return "global";
    case scope_site:
      return "site";
    case scope_link:
      return "link";
    case scope_host:
      return "host";
    case scope_nowhere:
      return "nowhere";
    default:
      return {};
  }
}

NetAddressesReader NetAddressesReader::resolve(Members& members) {
  NetAddressesReader self;
  self.jiffies_ = Jiffies::resolve(members);
  self.ip_ptr_ = members.offset("net_device", "ip_ptr");
  self.ifa_list_ = members.offset("in_device", "ifa_list");
  self.ifa_next_ = members.offset("in_ifaddr", "ifa_next");
  self.ifa_local_ = members.offset("in_ifaddr", "ifa_local");
  self.ifa_address_ = members.offset("in_ifaddr", "ifa_address");
  self.ifa_broadcast_ = members.offset("in_ifaddr", "ifa_broadcast");
  self.ifa_prefix_ = members.offset("in_ifaddr", "ifa_prefixlen");
  self.ifa_scope_ = members.offset("in_ifaddr", "ifa_scope");
  self.ifa_flags_ = members.offset("in_ifaddr", "ifa_flags");
  self.ifa_label_ = members.member("in_ifaddr", "ifa_label");
  self.ipv4_life_ = {members.offset("in_ifaddr", "ifa_valid_lft"),
                     members.offset("in_ifaddr", "ifa_preferred_lft"),
                     members.offset("in_ifaddr", "ifa_tstamp")};
  self.ip6_ptr_ = members.optional_offset("net_device", "ip6_ptr");
  if (!self.ip6_ptr_) return self;
  self.addr_list_ = members.offset("inet6_dev", "addr_list");
  self.if_list_ = members.offset("inet6_ifaddr", "if_list");
  self.addr6_ = members.offset("inet6_ifaddr", "addr");
  self.peer6_ = members.offset("inet6_ifaddr", "peer_addr");
  self.prefix6_ = members.offset("inet6_ifaddr", "prefix_len");
  self.flags6_ = members.offset("inet6_ifaddr", "flags");
  self.scope6_ = members.member("inet6_ifaddr", "scope");
  self.ipv6_life_ = {members.offset("inet6_ifaddr", "valid_lft"),
                     members.offset("inet6_ifaddr", "prefered_lft"),  // as the kernel spells it
                     members.offset("inet6_ifaddr", "tstamp")};
  return self;
}

void NetAddressesReader::read(Context& context, GuestVirt device, std::size_t& left,
                              NetDevice& into) const {
  read_ipv4(context, device, left, into);
  read_ipv6(context, device, left, into);
}

void NetAddressesReader::read_ipv4(Context& context, GuestVirt device, std::size_t& left,
                                   NetDevice& into) const {
  Reader& reader = context.reader;
  const GuestVirt in_device = reader.pointer(device + ip_ptr_);
  if (in_device == GuestVirt()) return;
  GuestVirt entry = reader.pointer(in_device + ifa_list_);
  while (entry != GuestVirt() && reader.ok()) {
    if (left == 0) return reader.set_fault(entry);
    --left;
    into.addresses.push_back(ipv4(context, entry));
    const auto address = reader.get<Ipv4Bytes>(entry + ifa_local_);
    into.ipv4.push_back(format_prefix(context.arena(), address, into.addresses.back().prefix));
    entry = reader.pointer(entry + ifa_next_);
  }
}

void NetAddressesReader::read_ipv6(Context& context, GuestVirt device, std::size_t& left,
                                   NetDevice& into) const {
  Reader& reader = context.reader;
  const GuestVirt in6_device = ip6_ptr_ ? reader.pointer(device + *ip6_ptr_) : GuestVirt();
  if (in6_device == GuestVirt()) return;
  walk_list(reader, in6_device + addr_list_, [&](GuestVirt node) {
    const GuestVirt entry = node - if_list_;
    if (left == 0) return reader.set_fault(entry);
    --left;
    into.addresses.push_back(ipv6(context, entry));
    const auto address = reader.get<Ipv6Bytes>(entry + addr6_);
    into.ipv6.push_back(format_prefix(context.arena(), address, into.addresses.back().prefix));
  });
}

NetAddress NetAddressesReader::ipv4(Context& context, GuestVirt entry) const {
  Reader& reader = context.reader;
  Arena& arena = context.arena();
  const auto local = reader.get<Ipv4Bytes>(entry + ifa_local_);
  const auto peer = reader.get<Ipv4Bytes>(entry + ifa_address_);
  const auto broadcast = reader.get<Ipv4Bytes>(entry + ifa_broadcast_);
  const std::uint32_t flags = reader.u32(entry + ifa_flags_);
  NetAddress address;
  address.family = "inet";
  address.local = format_address(arena, local);
  address.prefix = reader.u8(entry + ifa_prefix_);
  address.peer = peer == local ? "" : format_address(arena, peer);
  address.broadcast = broadcast == Ipv4Bytes{} ? "" : format_address(arena, broadcast);
  const unsigned scope = reader.u8(entry + ifa_scope_);
  address.scope = address_scope(scope);
  if (address.scope.empty()) address.scope = arena.copy(fmt::format_int(scope).c_str());
  const std::span<char> room = arena.allocate(std::min(ifa_label_.size, 16U));
  address.label = arena.shrink(room, reader.c_string(entry + ifa_label_.offset, room).size());
  address.flags = address_flags(flags, false);
  read_lifetime(context, entry, ipv4_life_, (flags & flag_permanent) != 0, address);
  return address;
}

NetAddress NetAddressesReader::ipv6(Context& context, GuestVirt entry) const {
  Reader& reader = context.reader;
  Arena& arena = context.arena();
  const auto peer = reader.get<Ipv6Bytes>(entry + peer6_);
  const std::uint32_t flags = reader.u32(entry + flags6_);
  NetAddress address;
  address.family = "inet6";
  address.local = format_address(arena, reader.get<Ipv6Bytes>(entry + addr6_));
  address.prefix = reader.u8(entry + prefix6_);
  address.peer = peer == Ipv6Bytes{} ? "" : format_address(arena, peer);
  address.broadcast = "";
  address.scope = address_scope(ipv6_scope(reader.value(entry, scope6_)));
  address.label = "";
  address.flags = address_flags(flags, true);
  const bool lasts =
      (flags & flag_permanent) != 0 && reader.u32(entry + ipv6_life_.preferred) == for_ever;
  read_lifetime(context, entry, ipv6_life_, lasts, address);
  return address;
}

/// What is left of it: as inet_fill_ifaddr() and inet6_fill_ifaddr() reckon, a valid time does not
/// pass while the preferred one is for ever.
void NetAddressesReader::read_lifetime(Context& context, GuestVirt entry, const Lifetime& at,
                                       bool lasts, NetAddress& into) const {
  Reader& reader = context.reader;
  const std::uint32_t valid = lasts ? for_ever : reader.u32(entry + at.valid);
  const std::uint32_t preferred = lasts ? for_ever : reader.u32(entry + at.preferred);
  into.valid_life_time = valid;
  into.preferred_life_time = preferred;
  if (preferred == for_ever) return;
  const auto passed = jiffies_.seconds_since(reader, reader.u64(entry + at.stamp));
  const auto left = [&](std::uint32_t time) -> std::optional<std::uint32_t> {
    if (time == for_ever) return time;
    if (!passed) return std::nullopt;
    return *passed < time ? time - static_cast<std::uint32_t>(*passed) : 0;
  };
  into.valid_life_time = left(valid);
  into.preferred_life_time = left(preferred);
  if (!passed) {
    context.state.problem(
        "net_devices",
        fmt::format("{}: how fast the kernel's clock ticks is not known", into.local));
  }
}

}  // namespace vmsight
