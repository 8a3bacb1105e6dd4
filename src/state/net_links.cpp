#include "state/net_links.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "state/lists.h"
#include "state/net_address.h"

namespace vmsight {
namespace {

constexpr std::size_t max_address = 32;                 // MAX_ADDR_LEN
constexpr std::size_t max_kind = 64, max_alias = 256;   // IFALIASZ
constexpr std::size_t max_alternative_name = 128;       // ALTIFNAMSIZ
constexpr std::uint64_t device_started = 1;             // __LINK_STATE_START
constexpr unsigned oper_down = 2;                       // IF_OPER_DOWN
constexpr unsigned slots_per_node = 64, slot_bits = 6;  // XA_CHUNK_SIZE
constexpr unsigned max_shift = 60;

struct LinkType {
  unsigned number;
  std::string_view name;
};
// ARPHRD_* of include/uapi/linux/if_arp.h, as lib/ll_types.c of iproute2 calls them.
constexpr LinkType link_types[] = {
    {0, "netrom"},
    {1, "ether"},
    {2, "eether"},
    {3, "ax25"},
    {4, "pronet"},
    {5, "chaos"},
    {6, "ieee802"},
    {7, "arcnet"},
    {8, "atalk"},
    {15, "dlci"},
    {19, "atm"},
    {23, "metricom"},
    {24, "ieee1394"},
    {32, "infiniband"},
    {256, "slip"},
    {257, "cslip"},
    {258, "slip6"},
    {259, "cslip6"},
    {260, "rsrvd"},
    {264, "adapt"},
    {270, "rose"},
    {271, "x25"},
    {272, "hwx25"},
    {280, "can"},
    {512, "ppp"},
    {513, "hdlc"},
    {516, "lapb"},
    {517, "ddcmp"},
    {518, "rawhdlc"},
    {768, "ipip"},
    {769, "tunnel6"},
    {770, "frad"},
    {771, "skip"},
    {772, "loopback"},
    {773, "ltalk"},
    {774, "fddi"},
    {775, "bif"},
    {776, "sit"},
    {777, "ip/ddp"},
    {778, "gre"},
    {779, "pimreg"},
    {780, "hippi"},
    {781, "ash"},
    {782, "econet"},
    {783, "irda"},
    {784, "fcpp"},
    {785, "fcal"},
    {786, "fcpl"},
    {787, "fcfb0"},
    {800, "tr"},
    {801, "ieee802.11"},
    {802, "ieee802.11/prism"},
    {803, "ieee802.11/radiotap"},
    {804, "ieee802.15.4"},
    {805, "ieee802.15.4/monitor"},
    {820, "phonet"},
    {821, "phonet_pipe"},
    {822, "caif"},
    {823, "gre6"},
    {824, "netlink"},
    {825, "6lowpan"},
    {65534, "none"},
    {65535, "void"},
};
constexpr std::array<std::string_view, 7> operstates = {
    "UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP"};

/// Where the drivers of a kind keep what they work on.
enum class Keeping : std::uint8_t { other_end, lower, tunnel };
struct Kind {
  std::string_view name;
  Keeping keeping;
  std::string_view module, type;  // of the private part of tunnels
};
constexpr Kind kinds[] = {
    {"veth", Keeping::other_end, "", ""},
    {"netkit", Keeping::other_end, "", ""},
    {"vlan", Keeping::lower, "", ""},
    {"macvlan", Keeping::lower, "", ""},
    {"macvtap", Keeping::lower, "", ""},
    {"ipvlan", Keeping::lower, "", ""},
    {"ipvtap", Keeping::lower, "", ""},
    {"macsec", Keeping::lower, "", ""},
    {"ipip", Keeping::tunnel, "ipip", "ip_tunnel"},
    {"sit", Keeping::tunnel, "sit", "ip_tunnel"},
    {"gre", Keeping::tunnel, "ip_gre", "ip_tunnel"},
    {"gretap", Keeping::tunnel, "ip_gre", "ip_tunnel"},
    {"erspan", Keeping::tunnel, "ip_gre", "ip_tunnel"},
    {"vti", Keeping::tunnel, "ip_vti", "ip_tunnel"},
    {"ip6tnl", Keeping::tunnel, "ip6_tunnel", "ip6_tnl"},
    {"ip6gre", Keeping::tunnel, "ip6_gre", "ip6_tnl"},
    {"ip6gretap", Keeping::tunnel, "ip6_gre", "ip6_tnl"},
    {"vti6", Keeping::tunnel, "ip6_vti", "ip6_tnl"},
};

const Kind* find_kind(std::string_view name) {
  for (const Kind& kind : kinds) {
    if (kind.name == name) return &kind;
  }
  return nullptr;
}

}  // namespace

std::string_view link_type_name(unsigned type) {
  for (const LinkType& one : link_types) {
    if (one.number == type) return one.name;
  }
  return "";
}

std::string_view operstate_name(unsigned state) {
  return operstates[state < operstates.size() ? state : 0];
}

NetLinksReader NetLinksReader::resolve(Members& members) {
  NetLinksReader self;
  self.name_ = members.member("net_device", "name");
  self.ifindex_ = members.member("net_device", "ifindex");
  self.type_ = members.member("net_device", "type");
  self.operstate_ = members.member("net_device", "operstate");
  self.link_mode_ = members.member("net_device", "link_mode");
  self.group_ = members.member("net_device", "group");
  self.queue_length_ = members.member("net_device", "tx_queue_len");
  self.addr_len_ = members.member("net_device", "addr_len");
  self.state_ = members.offset("net_device", "state");
  self.broadcast_ = members.offset("net_device", "broadcast");
  self.net_ = members.offset("net_device", "nd_net");
  self.link_ops_ = members.offset("net_device", "rtnl_link_ops");
  self.kind_ = members.offset("rtnl_link_ops", "kind");
  self.ops_ = members.offset("net_device", "netdev_ops");
  self.get_iflink_ = members.offset("net_device_ops", "ndo_get_iflink");
  self.qdisc_ = members.offset("net_device", "qdisc");
  self.qdisc_ops_ = members.offset("Qdisc", "ops");
  self.qdisc_id_ = members.offset("Qdisc_ops", "id");
  self.alias_ = members.find("net_device", "ifalias");
  self.alias_text_ = members.find("dev_ifalias", "ifalias");
  self.name_node_ = members.find("net_device", "name_node");
  self.name_list_ = members.find("netdev_name_node", "list");
  self.other_name_ = members.find("netdev_name_node", "name");
  self.upper_ = members.offset("net_device", "adj_list.upper");
  self.lower_ = members.offset("net_device", "adj_list.lower");
  self.adjacent_device_ = members.offset("netdev_adjacent", "dev");
  self.adjacent_list_ = members.offset("netdev_adjacent", "list");
  self.master_flag_ = members.member("netdev_adjacent", "master");
  self.inum_ = members.offset("net", "ns.inum");
  self.netns_ids_ = members.offset("net", "netns_ids.idr_rt.xa_head");
  self.node_shift_ = members.offset("xa_node", "shift");
  self.node_slots_ = members.offset("xa_node", "slots");
  // netdev_priv(): a member of newer kernels; before, what follows at the next 32 bytes.
  self.private_ = members.optional_offset("net_device", "priv")
                      .value_or((members.size("net_device") + 31) & ~31U);
  return self;
}

void NetLinksReader::read(Context& context, GuestVirt device, View& view, NetDevice& into) const {
  read_plain(context, device, into);
  read_alternative_names(context, device, view, into);
  const GuestVirt master = find_master(context.reader, device, view);
  into.master = "";
  if (master != GuestVirt()) {
    into.master_index = index(context.reader, master);
    into.master = name(context, master);
  }
  read_link(context, device, view, into);
}

void NetLinksReader::read_plain(Context& context, GuestVirt device, NetDevice& into) const {
  Reader& reader = context.reader;
  const auto type = static_cast<unsigned>(reader.value(device, type_));
  into.link_type = link_type_name(type);
  if (into.link_type.empty()) into.link_type = context.arena().copy(fmt::format("[{}]", type));
  const bool started = (reader.u64(device + state_) & device_started) != 0;
  into.operstate =
      operstate_name(started ? static_cast<unsigned>(reader.value(device, operstate_)) : oper_down);
  const std::uint64_t mode = reader.value(device, link_mode_);
  into.linkmode = mode == 0   ? "DEFAULT"
                  : mode == 1 ? "DORMANT"
                              : context.arena().copy(fmt::format("{}", mode));
  into.group = static_cast<std::uint32_t>(reader.value(device, group_));
  into.tx_queue_length = static_cast<std::uint32_t>(reader.value(device, queue_length_));
  std::array<std::byte, max_address> bytes;
  const auto length = static_cast<std::size_t>(reader.value(device, addr_len_));
  const std::span<std::byte> used(bytes.data(), std::min(length, bytes.size()));
  reader.copy(device + broadcast_, used);
  into.broadcast = format_hardware_address(context.arena(), used);
  const GuestVirt link_ops = reader.pointer(device + link_ops_);
  into.kind =
      link_ops == GuestVirt() ? "" : text(context, reader.pointer(link_ops + kind_), max_kind);
  const GuestVirt qdisc = reader.pointer(device + qdisc_);
  into.qdisc =
      qdisc == GuestVirt() ? "" : text(context, reader.pointer(qdisc + qdisc_ops_) + qdisc_id_, 16);
  const GuestVirt alias =
      alias_ != absent && alias_text_ != absent ? reader.pointer(device + alias_) : GuestVirt();
  into.alias = alias == GuestVirt() ? "" : text(context, alias + alias_text_, max_alias);
}

/// The device's own name heads the list of the others.
void NetLinksReader::read_alternative_names(Context& context, GuestVirt device, View& view,
                                            NetDevice& into) const {
  if (name_node_ == absent || name_list_ == absent || other_name_ == absent) return;
  Reader& reader = context.reader;
  const GuestVirt first = reader.pointer(device + name_node_);
  if (first == GuestVirt()) return;
  walk_list(reader, first + name_list_, [&](GuestVirt node) {
    if (view.entries_left == 0) return reader.set_fault(node);
    --view.entries_left;
    const GuestVirt name = reader.pointer(node - name_list_ + other_name_);
    into.alternative_names.push_back(text(context, name, max_alternative_name));
  });
}

GuestVirt NetLinksReader::find_master(Reader& reader, GuestVirt device, View& view) const {
  GuestVirt master;
  walk_list(reader, device + upper_, [&](GuestVirt node) {
    if (view.entries_left == 0) return reader.set_fault(node);
    --view.entries_left;
    const GuestVirt adjacent = node - adjacent_list_;
    if (reader.value(adjacent, master_flag_) != 0)
      master = reader.pointer(adjacent + adjacent_device_);
  });
  return master;
}

void NetLinksReader::read_link(Context& context, GuestVirt device, View& view,
                               NetDevice& into) const {
  Reader& reader = context.reader;
  into.link_index = into.ifindex;
  into.link = "";
  if (reader.pointer(reader.pointer(device + ops_) + get_iflink_) == GuestVirt()) return;
  if (!reader.ok()) return;
  const auto link = find_link(context, device, into.kind, view);
  if (!link) {
    into.link_index.reset();
    into.link = {};
    return context.state.problem(
        "net_devices",
        fmt::format("{}: where a device of kind '{}' keeps what it works on is not known",
                    into.name, into.kind));
  }
  into.link_index = link->index;
  const GuestVirt own = reader.pointer(device + net_);
  if (link->net == GuestVirt() || link->net == own) {
    if (link->device != GuestVirt()) into.link = name(context, link->device);
    return;
  }
  into.link_netns = reader.u32(link->net + inum_);
  into.link_netnsid = find_netnsid(reader, own, link->net, view);
}

std::optional<NetLinksReader::Link> NetLinksReader::find_link(Context& context, GuestVirt device,
                                                              std::string_view kind,
                                                              View& view) const {
  const Kind* known = find_kind(kind);
  if (known == nullptr) return std::nullopt;
  switch (known->keeping) {
    case Keeping::other_end:
      return find_end(context.reader, device);
    case Keeping::lower:
      return find_lower(context.reader, device, view);
    case Keeping::tunnel:
      return find_tunnel(context, device, known->module, known->type);
  }
  return std::nullopt;
}

/// The private part of both begins with a pointer to the other end, whose own points back.
std::optional<NetLinksReader::Link> NetLinksReader::find_end(Reader& reader,
                                                             GuestVirt device) const {
  const GuestVirt end = reader.pointer(device + private_);
  if (end == GuestVirt()) return Link{};
  if (reader.pointer(end + private_) != device) return std::nullopt;
  return Link{index(reader, end), end, reader.pointer(end + net_)};
}

std::optional<NetLinksReader::Link> NetLinksReader::find_lower(Reader& reader, GuestVirt device,
                                                               View& view) const {
  const GuestVirt head = device + lower_, node = reader.pointer(head);
  if (view.entries_left == 0 || node == head) return std::nullopt;
  --view.entries_left;
  const GuestVirt lower = reader.pointer(node - adjacent_list_ + adjacent_device_);
  return Link{index(reader, lower), lower, reader.pointer(lower + net_)};
}

std::optional<NetLinksReader::Link> NetLinksReader::find_tunnel(Context& context, GuestVirt device,
                                                                std::string_view module,
                                                                std::string_view type) const {
  Reader& reader = context.reader;
  const auto at = tunnel(context.kernel, module, type);
  const GuestVirt own = device + private_;
  if (!at || reader.pointer(own + at->device) != device) return std::nullopt;
  return Link{reader.u32(own + at->link), {}, reader.pointer(own + at->net)};
}

/// By the module's types. The kernels whose modules have none (5.10) have one layout, which the
/// pointer back to the device confirms.
std::optional<NetLinksReader::Tunnel> NetLinksReader::tunnel(Kernel& kernel,
                                                             std::string_view module,
                                                             std::string_view type) const {
  for (const std::string& name : {fmt::format("{}:{}", module, type), std::string(type)}) {
    Members members(kernel);
    const Tunnel at{members.offset(name, "dev"), members.offset(name, "net"),
                    members.offset(name, "parms.link")};
    if (members.check()) return at;
  }
  // ip_tunnel { next, hash_node, dev, net, err_time, err_count, 3 numbers of GRE, 4 of ERSPAN,
  // dst_cache of two words, parms { name[16], link ... } }
  if (type == "ip_tunnel") return Tunnel{24, 32, 104};
  // ip6_tnl { next, dev, net, parms { name[16], link ... } }
  return Tunnel{8, 16, 40};
}

/// What a namespace calls another one.
std::optional<std::int32_t> NetLinksReader::find_netnsid(Reader& reader, GuestVirt net,
                                                         GuestVirt other, View& view) const {
  const auto [ids, is_new] = view.ids.try_emplace(net.raw());
  if (is_new) read_netnsids(reader, net, view, ids->second);
  const auto found = ids->second.find(other.raw());
  return found == ids->second.end() ? std::nullopt : std::optional(found->second);
}

/// An IDR, which is an xarray of struct net.
void NetLinksReader::read_netnsids(Reader& reader, GuestVirt net, View& view,
                                   std::unordered_map<std::uint64_t, std::int32_t>& into) const {
  struct Step {
    std::uint64_t entry, base;
  };
  std::vector<Step> waiting{{reader.u64(net + netns_ids_), 0}};
  while (!waiting.empty() && reader.ok()) {
    const Step step = waiting.back();
    waiting.pop_back();
    const bool is_node = (step.entry & 3) == 2 && step.entry > 4096;
    if (!is_node) {
      into.emplace(step.entry, static_cast<std::int32_t>(step.base));
      continue;
    }
    const GuestVirt node(step.entry - 2);
    const unsigned shift = reader.u8(node + node_shift_);
    if (shift > max_shift || shift % slot_bits != 0) break;
    for (unsigned slot = slots_per_node; slot-- > 0;) {
      if (view.ids_left == 0) return;
      --view.ids_left;
      const std::uint64_t entry = reader.u64(node + node_slots_ + std::uint64_t{slot} * 8);
      if (entry != 0) waiting.push_back({entry, step.base + (std::uint64_t{slot} << shift)});
    }
  }
}

std::string_view NetLinksReader::text(Context& context, GuestVirt at, std::size_t size) const {
  const std::span<char> room = context.arena().allocate(size);
  return context.arena().shrink(room, context.reader.c_string(at, room).size());
}

std::string_view NetLinksReader::name(Context& context, GuestVirt device) const {
  return text(context, device + name_.offset, std::min(name_.size, 16U));
}

}  // namespace vmsight
