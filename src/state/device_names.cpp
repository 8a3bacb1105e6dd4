#include "state/device_names.h"

#include <algorithm>

#include <fmt/format.h>

#include "state/lists.h"

namespace vmsight {

DeviceNames DeviceNames::resolve(Members& members) {
  DeviceNames self;
  self.base_ = members.offset("net", "dev_base_head");
  self.list_ = members.offset("net_device", "dev_list");
  self.name_ = members.member("net_device", "name");
  self.index_ = members.member("net_device", "ifindex");
  return self;
}

std::string_view DeviceNames::name(Context& context, GuestVirt net, unsigned index,
                                   View& view) const {
  if (view.known.insert(net.raw()).second) learn(context, net, view);
  const auto found = view.names.find({net.raw(), index});
  return found == view.names.end() ? "" : found->second;
}

/// Faults of its own are no faults of what is bound to a device.
void DeviceNames::learn(Context& context, GuestVirt net, View& view) const {
  Reader& reader = context.reader;
  if (!reader.ok()) return;
  walk_list(reader, net + base_, [&](GuestVirt node) {
    if (view.devices_left == 0) return reader.set_fault(node);
    --view.devices_left;
    const GuestVirt device = node - list_;
    const std::span<char> room = context.arena().allocate(std::min(name_.size, 16U));
    const std::size_t size = reader.c_string(device + name_.offset, room).size();
    const auto index = static_cast<unsigned>(reader.value(device, index_));
    if (!reader.ok()) return;
    view.names.emplace(std::pair(net.raw(), index), context.arena().shrink(room, size));
  });
  if (!reader.ok()) {
    context.state.problem(
        "sockets", fmt::format("the names of devices break at {}", reader.fault().value_or(net)));
  }
  reader.clear_fault();
}

}  // namespace vmsight
