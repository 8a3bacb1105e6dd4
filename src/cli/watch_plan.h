// `vmsight watch --dry-run`: what would be armed in a VM, and at what cost.
#pragma once

#include <nlohmann/json.hpp>

#include "cli/verb.h"

namespace vmsight {

/// `plan` is what GuestWatch::plan() gives.
void print_plan(Session& session, const nlohmann::json& plan);

}  // namespace vmsight
