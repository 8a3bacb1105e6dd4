// Memory maps as `pmap` prints them.
#pragma once

#include "render/output.h"
#include "vmsight/state.h"

namespace vmsight {

struct PmapFormat {
  bool residency = false;   // -x: what is in RAM and what is dirty
  bool device = false;      // -d: offset and device; not with residency
  bool full_paths = false;  // -p
  bool headers = true;      // headings and totals
};

/// For each process: a title, its maps, their totals, as pmap of procps has them.
void print_memory_maps(Output& out, const State& state, const PmapFormat& format);

}  // namespace vmsight
