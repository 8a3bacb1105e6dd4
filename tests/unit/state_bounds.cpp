#include <gtest/gtest.h>

#include "state/process_context.h"
#include "state/process_memory.h"

namespace vmsight::state_bounds_test {
namespace {

TEST(StateBounds, RecordsAndTextTogetherFillAPart) {
  constexpr std::size_t some = 1000;
  Arena arena;
  std::vector<OpenFile> files(some);
  EXPECT_FALSE(is_full(files, arena));
  // Never touched, so that the host does not give it.
  static_cast<void>(arena.allocate(max_state_bytes - some * sizeof(OpenFile) - 1));
  EXPECT_FALSE(is_full(files, arena));
  files.emplace_back();
  EXPECT_TRUE(is_full(files, arena));
  EXPECT_FALSE(is_full(std::vector<Thread>(1), arena)) << "its own records count, not others'";
  static_cast<void>(arena.allocate(some * sizeof(OpenFile) + 1));
  EXPECT_TRUE(is_full(std::vector<Thread>(), arena));
}

}  // namespace
}  // namespace vmsight::state_bounds_test
