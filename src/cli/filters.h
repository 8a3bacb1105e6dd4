// Filters that several verbs have.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/result.h"
#include "vmsight/state.h"

namespace vmsight {

/// An empty list lets everything pass.
template <typename T>
bool among(const std::vector<T>& wanted, const T& value) {
  return wanted.empty() || std::find(wanted.begin(), wanted.end(), value) != wanted.end();
}
inline bool among(const std::vector<std::string>& wanted, std::string_view value) {
  return wanted.empty() || std::find(wanted.begin(), wanted.end(), value) != wanted.end();
}

/// A shell pattern: * and ? and [..] as fnmatch(3) reads them.
bool matches(const std::string& pattern, std::string_view text);
bool matches_any(const std::vector<std::string>& patterns, std::string_view text);

/// Drops threads whose process is not among state.processes.
void keep_threads_of_processes(State& state);

}  // namespace vmsight
