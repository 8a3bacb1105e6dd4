// A piece of work in a process of its own: one that crashes, hangs, or eats memory costs one
// figure, not the study; and what it used is its own alone.
#pragma once

#include <functional>
#include <string>

#include "vmsight/result.h"

namespace vmsight {

/// Runs `work` in a child process and gives what it returned. The child is ended after `seconds`
/// (timeout); os if it died. To be called while this process has one thread.
Result<std::string> run_isolated(const std::function<std::string()>& work, double seconds);

}  // namespace vmsight
