// A piece of work in a process of its own: one that crashes, hangs, eats memory or is taken over costs its answer, not
// the program; and what it used, or gave up, is its own alone.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <string>

#include "vmsight/result.h"

namespace vmsight {

struct IsolatedLimits {
  std::string what;  // is done, for errors: "measure"
  double seconds = 0;
  std::size_t most = std::numeric_limits<std::size_t>::max();  // bytes of an answer
};

/// Runs `work` in a child process and gives what it returned. timeout, or bad_data, if it took longer or said more than the
/// limits allow: the child is ended then; os if it died. To be called while this process has one thread.
Result<std::string> run_isolated(const std::function<std::string()>& work,
                                 const IsolatedLimits& limits);

}  // namespace vmsight
