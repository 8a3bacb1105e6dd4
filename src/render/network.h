// Network devices as `ip` prints them.
#pragma once

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

struct IpFormat {
  bool addresses = true;    // `ip addr`; false: `ip link`
  bool statistics = false;  // -s
  bool brief = false;       // -br
  TableOptions table;
};

/// Namespaces are told apart by a line before their devices, if there are several.
void print_net_devices(Output& out, const State& state, const IpFormat& format);

}  // namespace vmsight
