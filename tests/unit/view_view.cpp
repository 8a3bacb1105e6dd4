// One view: what a reader gets of its own errors, and of those of the view.
#include "vmsight/view.h"

#include <gtest/gtest.h>

#include "base/memory_decorator.h"
#include "support/byte_memory.h"

namespace vmsight::view_view_test {
namespace {

/// The view of it begins, and ends as the test wants it to.
class Ending final : public MemoryDecorator {
 public:
  explicit Ending(GuestMemory& inner) : MemoryDecorator(inner) {}
  std::optional<ErrorCode> beginning, end;
  unsigned ends = 0;

 private:
  static Result<void> result(std::optional<ErrorCode> code) {
    return code ? Result<void>(Error{.code = *code, .message = "the view"}) : Result<void>();
  }
  Result<void> do_refresh() override { return result(beginning); }
  Result<void> do_end_view() override {
    ++ends;
    return result(end);
  }
};

class InOneView : public testing::Test {
 protected:
  test::ByteMemory inner{{{GuestPhys(0), page_size}}};
  Ending memory{inner};
};

TEST_F(InOneView, RunsBetweenItsBeginningAndItsEnd) {
  bool used = false;
  EXPECT_TRUE(in_one_view(memory, [&]() -> Result<void> {
    used = memory.ends == 0;
    return {};
  }));
  EXPECT_TRUE(used);
  EXPECT_EQ(memory.ends, 1u);
}

TEST_F(InOneView, AViewThatDoesNotBeginIsNotUsed) {
  memory.beginning = ErrorCode::os;
  const auto done = in_one_view(memory, []() -> Result<void> {
    ADD_FAILURE() << "there is no view";
    return {};
  });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::os);
}

TEST_F(InOneView, TheFirstErrorIsTold) {
  const auto fail = []() -> Result<void> {
    return Error{.code = ErrorCode::fault, .message = "a read"};
  };
  EXPECT_EQ(in_one_view(memory, fail).error().code, ErrorCode::fault);
  EXPECT_EQ(memory.ends, 1u);
  memory.end = ErrorCode::os;
  EXPECT_EQ(in_one_view(memory, fail).error().code, ErrorCode::fault);
  memory.end = ErrorCode::timeout;
  EXPECT_EQ(in_one_view(memory, fail).error().code, ErrorCode::timeout) << "it explains the other";
}

}  // namespace
}  // namespace vmsight::view_view_test
