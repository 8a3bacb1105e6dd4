// Open files as `lsof` prints them.
#pragma once

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

/// A row for each open file of state.open_files; and, for each process, its directories (cwd,
/// rtd), program (txt) and the files it maps (mem) where the state has them. Sockets are joined
/// with state.sockets for their addresses.
void print_open_files(Output& out, const State& state, const TableOptions& options);

}  // namespace vmsight
