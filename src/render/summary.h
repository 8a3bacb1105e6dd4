// The whole state on one screen.
#pragma once

#include "render/json.h"
#include "render/output.h"

namespace vmsight {

void print_summary(Output& out, const VmSummary& vm, const State& state);

}  // namespace vmsight
