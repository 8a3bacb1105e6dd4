// The freezer halter of vmsight/halt.h by one version of cgroups only, with a lease that no test
// outlasts: for tests.
#pragma once

#include "halt/freezer.h"
#include "vmsight/halt.h"

namespace vmsight {

Result<std::unique_ptr<Halter>> open_freezer_halter(const Vm& vm, const Freezing& how);

}  // namespace vmsight
