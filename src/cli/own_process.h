// A look at one guest by a process of its own, so that it can have a sandbox and its caller go on with other guests.
#pragma once

#include <functional>
#include <string>

#include "vmsight/result.h"

namespace vmsight {

/// Forks; what `work` gives, or its error, is the value. bad_data if the process ended without saying anything: the
/// sandbox ended it, or a fault.
Result<std::string> in_own_process(const std::function<Result<std::string>()>& work);

}  // namespace vmsight
