#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight::base_result_test {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return Error{.code = ErrorCode::bad_data, .message = "odd"};
  return value / 2;
}

Result<int> quarter(int value) {
  VMSIGHT_TRY(const int first, half(value));
  VMSIGHT_TRY(const int second, half(first));
  return second;
}

Result<void> check_even(int value) {
  VMSIGHT_TRY_VOID(half(value).has_value() ? Result<void>() : Result<void>(half(value).error()));
  return {};
}

TEST(Result, HoldsAValueOrAnError) {
  EXPECT_EQ(*half(4), 2);
  ASSERT_FALSE(half(3));
  EXPECT_EQ(half(3).error().message, "odd");
  EXPECT_EQ(half(3).value_or(7), 7);
  EXPECT_EQ(half(4).value_or(7), 2);
}

TEST(Result, TryReturnsTheFirstError) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_FALSE(quarter(6));
  EXPECT_FALSE(quarter(5));
  EXPECT_TRUE(check_even(2));
  EXPECT_FALSE(check_even(1));
}

TEST(Result, MovesWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> made = std::make_unique<int>(5);
  ASSERT_TRUE(made);
  const std::unique_ptr<int> owned = *std::move(made);
  EXPECT_EQ(*owned, 5);
}

TEST(ResultDeathTest, TheWrongSideIsOurBug) {
  EXPECT_DEATH(static_cast<void>(*half(3)), "internal error");
  EXPECT_DEATH(static_cast<void>(half(4).error()), "internal error");
  EXPECT_DEATH(static_cast<void>(Result<void>().error()), "internal error");
}

TEST(OsError, NamesActionAndCauseAndMapsTheCode) {
  const Error missing = os_error(ENOENT, "open /nowhere");
  EXPECT_EQ(missing.code, ErrorCode::os);
  EXPECT_EQ(missing.os_errno, ENOENT);
  EXPECT_EQ(missing.message, "open /nowhere: No such file or directory");
  EXPECT_EQ(os_error(EPERM, "x").code, ErrorCode::permission);
  EXPECT_EQ(os_error(EACCES, "x").code, ErrorCode::permission);
  EXPECT_EQ(os_error(ESRCH, "x").code, ErrorCode::vm_gone);
  EXPECT_EQ(os_error(ESRCH, "x").message, "x: the process has ended");
}

TEST(UniqueFd, ClosesOnceAndMoves) {
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  UniqueFd reading(pipe_ends[0]);
  {
    UniqueFd writing(pipe_ends[1]);
    UniqueFd moved(std::move(writing));
    EXPECT_FALSE(writing);  // NOLINT(bugprone-use-after-move)
    EXPECT_TRUE(moved);
  }
  char byte = 0;
  EXPECT_EQ(::read(reading.get(), &byte, 1), 0) << "the writing end is closed";
}

TEST(ScopeExit, RunsUnlessDismissed) {
  int runs = 0;
  {
    ScopeExit guard([&] { ++runs; });
  }
  EXPECT_EQ(runs, 1);
  {
    ScopeExit guard([&] { ++runs; });
    guard.dismiss();
  }
  EXPECT_EQ(runs, 1);
}

}  // namespace
}  // namespace vmsight::base_result_test
