// Memory maps as `pmap` prints them.
#pragma once

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

struct PmapFormat {
  bool residency = false;   // -x: what is in RAM and what is dirty
  bool extended = false;    // -X: offset, device and inode too
  bool full_paths = false;  // -p
  TableOptions table;
};

/// For each process: a title, its maps, their total.
void print_memory_maps(Output& out, const State& state, const PmapFormat& format);

}  // namespace vmsight
