// Network devices as `ip` prints them.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

struct IpFormat {
  bool addresses = true;    // `ip addr`; false: `ip link`
  bool devices = true;      // false: addresses alone, as `ip addr show label PATTERN`
  bool hardware = true;     // the line link/...; `ip -4 addr` has none
  bool terse = false;       // as `ip -6 addr`, to which the kernel says less of a device
  bool statistics = false;  // -s
  bool brief = false;       // -br
  bool one_line = false;    // -o
  /// Namespaces and numbers of all devices that are down, also of those that are not printed.
  std::set<std::pair<std::uint64_t, unsigned>> down;
  /// What `ip netns` calls namespaces, by their inode numbers.
  std::multimap<std::uint64_t, std::string> namespaces;
  TableOptions table;
};

/// `down` of IpFormat, from a state that nothing was taken out of.
std::set<std::pair<std::uint64_t, unsigned>> devices_that_are_down(const State& state);

/// Namespaces are told apart by a line before their devices, if there are several.
void print_net_devices(Output& out, const State& state, const IpFormat& format);

}  // namespace vmsight
