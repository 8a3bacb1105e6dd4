#include "render/network.h"

#include <algorithm>
#include <map>

#include "render/escape.h"
#include "render/format.h"

namespace vmsight {
namespace {

bool has_flag(const NetDevice& device, std::string_view flag) {
  return std::find(device.flags.begin(), device.flags.end(), flag) != device.flags.end();
}

std::string text(std::string_view value) { return for_terminal(known(value)); }

std::string count(const std::optional<std::uint64_t>& value) {
  return value ? std::to_string(*value) : "?";
}

std::string_view link_type(const NetDevice& device) {
  return has_flag(device, "LOOPBACK") ? "link/loopback"
         : device.hwaddr.empty()      ? "link/none"
                                      : "link/ether";
}

std::string_view oper_state(const NetDevice& device) {
  if (has_flag(device, "LOOPBACK")) return "UNKNOWN";
  if (!has_flag(device, "UP")) return "DOWN";
  return has_flag(device, "LOWER_UP") ? "UP" : "DOWN";
}

void print_statistics(Output& out, const NetDevice& device) {
  const auto print = [&](std::string_view side, const auto& bytes, const auto& packets) {
    out.print("    {}: {:>12} {:>10}\n        {:>12} {:>10}\n", side, "bytes", "packets",
              count(bytes), count(packets));
  };
  print("RX", device.rx_bytes, device.rx_packets);
  print("TX", device.tx_bytes, device.tx_packets);
}

void print_device(Output& out, const NetDevice& device, const IpFormat& format) {
  out.print("{}: {}: <{}> mtu {} state {}\n", device.ifindex, text(device.name),
            fmt::join(device.flags, ","), device.mtu, oper_state(device));
  out.print("    {} {}\n", link_type(device), text(device.hwaddr));
  if (format.addresses) {
    for (std::string_view address : device.ipv4) out.print("    inet {}\n", text(address));
    for (std::string_view address : device.ipv6) out.print("    inet6 {}\n", text(address));
  }
  if (format.statistics) print_statistics(out, device);
}

void print_brief(Output& out, const std::vector<const NetDevice*>& devices,
                 const IpFormat& format) {
  Table table({{"NAME"}, {"STATE"}, {format.addresses ? "ADDRESSES" : "LINK"}});
  for (const NetDevice* device : devices) {
    table.row({text(device->name), oper_state(*device)});
    std::vector<std::string_view> addresses = device->ipv4;
    addresses.insert(addresses.end(), device->ipv6.begin(), device->ipv6.end());
    table.cell(format.addresses
                   ? fmt::format("{}", fmt::join(addresses, " "))
                   : fmt::format("{} <{}>", device->hwaddr, fmt::join(device->flags, ",")));
  }
  table.print(out, {.headers = false});
}

}  // namespace

void print_net_devices(Output& out, const State& state, const IpFormat& format) {
  std::map<std::uint64_t, std::vector<const NetDevice*>> namespaces;
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
