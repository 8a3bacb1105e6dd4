// Mounts as `findmnt` prints them.
#pragma once

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

enum class MountLayout : std::uint8_t { tree, list };

/// Those of state.mounts; a tree by parent, or in the order they have.
void print_mounts(Output& out, const State& state, MountLayout layout, const TableOptions& options);

}  // namespace vmsight
