// A look at one guest by a process of its own, so that it can have a sandbox and its caller go on with other guests.
#pragma once

#include <functional>
#include <string>

#include "vmsight/result.h"

namespace vmsight {

/// Forks; what `work` gives, or its error, is the value. Errors of run_isolated() if the sandbox ended the process, or a
/// fault; bad_data if what it says is none of that.
Result<std::string> in_own_process(const std::function<Result<std::string>()>& work);

}  // namespace vmsight
