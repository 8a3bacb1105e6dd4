#include "base/isolated.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

namespace vmsight::base_isolated_test {
namespace {

TEST(Isolated, GivesTheAnswer) {
  const auto answer =
      run_isolated([] { return std::string(200000, 'x'); }, {.what = "work", .seconds = 20});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->size(), 200000u);
}

TEST(Isolated, DeathIsAnError) {
  const auto killed = run_isolated(
      [] {
        ::raise(SIGKILL);
        return std::string();
      },
      {.what = "work", .seconds = 20});
  ASSERT_FALSE(killed);
  EXPECT_NE(killed.error().message.find("signal 9"), std::string::npos);
}

TEST(Isolated, EndsWhatHangs) {
  const auto late = run_isolated(
      [] {
        ::pause();
        return std::string();
      },
      {.what = "work", .seconds = 0.1});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::timeout);
}

TEST(Isolated, EndsWhatSaysTooMuch) {
  const auto endless = run_isolated([] { return std::string(10'000'000, 'x'); },
                                    {.what = "work", .seconds = 20, .most = 1000});
  ASSERT_FALSE(endless);
  EXPECT_EQ(endless.error().code, ErrorCode::bad_data);
}

}  // namespace
}  // namespace vmsight::base_isolated_test
