// What a measurement cannot go on without.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "vmsight/result.h"

namespace vmsight::bench {

/// Ends the program, and says why.
[[noreturn]] inline void give_up(const std::string& why) {
  fmt::print(stderr, "{}: {}\n", program_invocation_short_name, why);
  std::exit(1);
}

inline void must(Result<void> result) {
  if (!result) give_up(result.error().message);
}

template <typename T>
T must(Result<T> result) {
  if (!result) give_up(result.error().message);
  return std::move(result).value();
}

}  // namespace vmsight::bench
