#include "render/network.h"

#include <arpa/inet.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>
#include <map>

#include "render/escape.h"
#include "render/format.h"

namespace vmsight {
namespace {

constexpr std::uint32_t no_end = ~std::uint32_t{0};  // of a life time

using Devices = std::vector<const NetDevice*>;  // of one namespace

bool has_flag(const NetDevice& device, std::string_view flag) {
  return std::find(device.flags.begin(), device.flags.end(), flag) != device.flags.end();
}

std::string text(std::string_view value) { return for_terminal(known(value)); }

std::string count(const std::optional<std::uint64_t>& value) {
  return value ? std::to_string(*value) : "?";
}

bool among_types(const NetDevice& device, std::initializer_list<std::string_view> types) {
  return std::find(types.begin(), types.end(), device.link_type) != types.end();
}

/// Tunnels have IP addresses for hardware addresses.
std::string hardware_address(const NetDevice& device, std::string_view address) {
  const bool ipv4 = among_types(device, {"ipip", "sit", "gre"}) && address.size() == 4 * 3 - 1;
  const bool ipv6 = among_types(device, {"tunnel6", "gre6"}) && address.size() == 16 * 3 - 1;
  if (!ipv4 && !ipv6) return text(address);
  std::array<unsigned char, 16> bytes{};
  for (std::size_t i = 0; i < address.size(); i += 3) {
    std::from_chars(address.data() + i, address.data() + i + 2, bytes[i / 3], 16);
  }
  std::array<char, INET6_ADDRSTRLEN> room{};
  return ::inet_ntop(ipv4 ? AF_INET : AF_INET6, bytes.data(), room.data(), room.size());
}

/// "eth0", "eth0.5@eth0", "veth0@if4", "tunl0@NONE".
std::string name_and_link(const NetDevice& device) {
  std::string name = text(device.name);
  if (!device.link_index || *device.link_index == device.ifindex) return name;
  if (*device.link_index == 0) return name + "@NONE";
  if (device.link_netns || device.link.empty()) {
    return fmt::format("{}@if{}", name, *device.link_index);
  }
  return fmt::format("{}@{}", name, text(device.link));
}

std::string life_time(const std::optional<std::uint32_t>& seconds) {
  if (!seconds) return "?";
  return *seconds == no_end ? "forever" : fmt::format("{}sec", *seconds);
}

std::string address_text(const NetAddress& address) {
  const std::string peer = address.peer.empty() ? "" : fmt::format(" peer {}", address.peer);
  return fmt::format("{}{}/{}", address.local, peer, address.prefix);
}

void add_address(std::vector<std::string>& lines, const NetAddress& address) {
  std::string line = fmt::format("    {} {}", address.family, address_text(address));
  if (!address.broadcast.empty()) line += fmt::format(" brd {}", address.broadcast);
  line += fmt::format(" scope {}", address.scope);
  for (std::string_view flag : address.flags) line += fmt::format(" {}", flag);
  line += " " + text(address.label);  // ip(8) ends with a blank where there is none
  lines.push_back(line);
  lines.push_back(fmt::format("       valid_lft {} preferred_lft {}",
                              life_time(address.valid_life_time),
                              life_time(address.preferred_life_time)));
}

/// What a device works on may be down while it is up itself: "M-DOWN".
std::string device_flags_text(const NetDevice& device, const IpFormat& format) {
  std::string text = fmt::format("{}", fmt::join(device.flags, ","));
  const bool on_another = device.link_index && *device.link_index != device.ifindex;
  const bool here = on_another && !device.link_netns;
  if (!here || !format.down.contains({device.netns, *device.link_index})) return text;
  return text.empty() ? "M-DOWN" : text + ",M-DOWN";
}

std::string first_line(const NetDevice& device, const IpFormat& format) {
  std::string line = fmt::format("{}: {}: <{}> mtu {}", device.ifindex, name_and_link(device),
                                 device_flags_text(device, format), device.mtu);
  if (!device.qdisc.empty() && !format.terse) line += " qdisc " + text(device.qdisc);
  if (device.master_index != 0 && !format.terse) {
    line += " master " + (device.master.empty() ? fmt::format("if{}", device.master_index)
                                                : text(device.master));
  }
  line += fmt::format(" state {}", device.operstate);
  if (!format.addresses) line += fmt::format(" mode {}", device.linkmode);
  if (!format.terse) {
    line += device.group == 0 ? " group default" : fmt::format(" group {}", device.group);
  }
  if (device.tx_queue_length != 0) line += fmt::format(" qlen {}", device.tx_queue_length);
  return line;
}

std::string other_namespace(const NetDevice& device, const IpFormat& format) {
  const auto named = format.namespaces.find(*device.link_netns);
  if (named != format.namespaces.end()) return " link-netns " + text(named->second);
  if (!device.link_netnsid) return " link-netnsid unknown";
  return fmt::format(" link-netnsid {}", *device.link_netnsid);
}

std::string hardware_line(const NetDevice& device, const IpFormat& format) {
  std::string line = fmt::format("    link/{}", device.link_type);
  if (!device.hwaddr.empty()) {
    line += " " + hardware_address(device, device.hwaddr);
    line += has_flag(device, "POINTOPOINT") ? " peer " : " brd ";
    line += hardware_address(device, device.broadcast);
  }
  if (device.link_netns) line += other_namespace(device, format);
  return line;
}

void add_statistics(std::vector<std::string>& lines, const NetDevice& device) {
  const auto add = [&](std::string_view side, const auto& bytes, const auto& packets) {
    lines.push_back(fmt::format("    {}: {:>12} {:>10}", side, "bytes", "packets"));
    lines.push_back(fmt::format("        {:>12} {:>10}", count(bytes), count(packets)));
  };
  add("RX", device.rx_bytes, device.rx_packets);
  add("TX", device.tx_bytes, device.tx_packets);
}

void print_lines(Output& out, const std::vector<std::string>& lines, const IpFormat& format) {
  out.print("{}\n", fmt::join(lines, format.one_line ? "\\" : "\n"));
}

/// As `ip -o addr`: a line an address, and nothing of the device but its name.
void print_addresses(Output& out, const NetDevice& device, const IpFormat& format) {
  for (const NetAddress& address : device.addresses) {
    std::vector<std::string> lines;
    add_address(lines, address);
    lines.front() = fmt::format("{}: {}{}", device.ifindex, text(device.name), lines.front());
    print_lines(out, lines, format);
  }
}

void print_device(Output& out, const NetDevice& device, const IpFormat& format) {
  if (format.one_line && format.addresses) return print_addresses(out, device, format);
  std::vector<std::string> lines;
  if (format.devices) lines.push_back(first_line(device, format));
  if (format.devices && format.hardware) lines.push_back(hardware_line(device, format));
  if (!format.addresses && !device.alias.empty())
    lines.push_back("    alias " + text(device.alias));
  if (!format.addresses && format.statistics) add_statistics(lines, device);
  for (std::string_view name : device.alternative_names) {
    if (format.devices && !format.terse) lines.push_back("    altname " + text(name));
  }
  if (format.addresses) {
    for (const NetAddress& address : device.addresses) add_address(lines, address);
    if (format.statistics) add_statistics(lines, device);
  }
  print_lines(out, lines, format);
}

void print_brief(Output& out, const Devices& devices, const IpFormat& format) {
  Table table({{"NAME"}, {"STATE"}, {format.addresses ? "ADDRESSES" : "LINK"}});
  for (const NetDevice* device : devices) {
    table.row({name_and_link(*device), device->operstate});
    std::vector<std::string> addresses;
    for (const NetAddress& address : device->addresses) addresses.push_back(address_text(address));
    table.cell(format.addresses ? fmt::format("{}", fmt::join(addresses, " "))
                                : fmt::format("{} <{}>", hardware_address(*device, device->hwaddr),
                                              device_flags_text(*device, format)));
  }
  table.print(out, {.headers = false});
}

}  // namespace

std::set<std::pair<std::uint64_t, unsigned>> devices_that_are_down(const State& state) {
  std::set<std::pair<std::uint64_t, unsigned>> down;
  for (const NetDevice& device : state.net_devices) {
    if (!has_flag(device, "UP")) down.emplace(device.netns, device.ifindex);
  }
  return down;
}

void print_net_devices(Output& out, const State& state, const IpFormat& format) {
  std::map<std::uint64_t, Devices> namespaces;
  for (const NetDevice& device : state.net_devices) namespaces[device.netns].push_back(&device);
  for (auto& [netns, devices] : namespaces) {
    std::stable_sort(devices.begin(), devices.end(), [](const NetDevice* a, const NetDevice* b) {
      return a->ifindex < b->ifindex;
    });
    if (namespaces.size() > 1 && format.table.headers) out.print("netns {}:\n", netns);
    if (format.brief) {
      print_brief(out, devices, format);
      continue;
    }
    for (const NetDevice* device : devices) print_device(out, *device, format);
  }
}

}  // namespace vmsight
