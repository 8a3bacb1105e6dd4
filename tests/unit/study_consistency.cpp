#include "study/consistency.h"

#include <gtest/gtest.h>

namespace vmsight::study_consistency_test {
namespace {

/// A process of two threads, with a file, a map and a socket, and its parent.
State whole_state() {
  State state;
  state.processes.push_back({.pid = 1, .tgid = 1, .threads = 1});
  state.processes.push_back({.pid = 7, .tgid = 7, .ppid = 1, .threads = 2});
  for (const auto& [pid, tgid] : {std::pair(1, 1), std::pair(7, 7), std::pair(8, 7)})
    state.threads.push_back({.pid = pid, .tgid = tgid});
  state.open_files.push_back({.pid = 7});
  state.memory_maps.push_back({.pid = 7});
  state.sockets.push_back({.pid = 7});
  state.sockets.push_back({});  // nobody's
  return state;
}

std::uint64_t count(const State& state, std::string_view what) {
  const auto found = contradictions_of(state);
  const auto it = found.find(what);
  return it == found.end() ? 99 : it->second;
}

std::uint64_t count_all(const State& state) {
  std::uint64_t all = 0;
  for (const auto& [what, number] : contradictions_of(state)) all += number;
  return all;
}

TEST(Contradictions, AWholeStateHasNone) { EXPECT_EQ(count_all(whole_state()), 0u); }

TEST(Contradictions, OfAProcessThatIsMissing) {
  State state = whole_state();
  state.processes.erase(state.processes.begin() + 1);
  EXPECT_EQ(count(state, "thread without its process"), 2u);
  EXPECT_EQ(count(state, "file without its process"), 1u);
  EXPECT_EQ(count(state, "map without its process"), 1u);
  EXPECT_EQ(count(state, "socket without its process"), 1u);
  EXPECT_EQ(count_all(state), 5u);
}

TEST(Contradictions, OfAParentThatIsMissing) {
  State state = whole_state();
  state.processes[1].ppid = 5;
  EXPECT_EQ(count(state, "process without its parent"), 1u);
  state.processes[1].ppid = 0;
  EXPECT_EQ(count_all(state), 0u);
}

TEST(Contradictions, OfThreads) {
  State state = whole_state();
  state.threads.pop_back();
  EXPECT_EQ(count(state, "threads other than their process counts"), 1u);
  state.processes[1].validity = Validity::zombie;  // its threads go one by one
  EXPECT_EQ(count_all(state), 0u);
}

TEST(Contradictions, OfTwoProcessesWithOneNumber) {
  State state = whole_state();
  state.processes.push_back(state.processes[1]);
  EXPECT_EQ(count(state, "number that two processes have"), 1u);
}

TEST(Occurrence, CountsViewsAndRecords) {
  Occurrence seen;
  for (const std::uint64_t number : {0, 3, 1}) seen.add(number);
  EXPECT_EQ(seen.views, 2u);
  EXPECT_EQ(seen.records, 4u);
}

}  // namespace
}  // namespace vmsight::study_consistency_test
