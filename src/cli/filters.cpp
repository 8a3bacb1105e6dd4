#include "cli/filters.h"

#include <fmt/format.h>
#include <fnmatch.h>
#include <unordered_set>

namespace vmsight {

bool matches(const std::string& pattern, std::string_view text) {
  if (pattern.find_first_of("*?[\\") == pattern.npos)
    return pattern == text;  // the usual case, and fast
  return ::fnmatch(pattern.c_str(), std::string(text).c_str(), 0) == 0;
}

bool matches_any(const std::vector<std::string>& patterns, std::string_view text) {
  return patterns.empty() ||
         std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches(pattern, text); });
}

void keep_threads_of_processes(State& state) {
  std::unordered_set<std::int32_t> kept;
  for (const Process& process : state.processes) kept.insert(process.tgid);
  std::erase_if(state.threads, [&](const Thread& thread) { return !kept.contains(thread.tgid); });
}

}  // namespace vmsight
