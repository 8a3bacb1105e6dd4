#include "base/ticker.h"

#include <gtest/gtest.h>

#include "base/clock.h"

namespace vmsight::base_ticker_test {
namespace {

const auto never = [] { return false; };

void work_until(std::uint64_t at) {
  while (monotonic_ns() < at) {
  }
}

TEST(Ticker, TheFirstTickIsDueAtOnceTheNextAfterAPeriod) {
  constexpr std::uint64_t period = 20'000'000;
  Ticker ticker(period);
  const std::uint64_t start = monotonic_ns();
  EXPECT_EQ(ticker.wait(never).number, 0u);
  const Ticker::Tick second = ticker.wait(never);
  EXPECT_GE(monotonic_ns() - start, period);
  EXPECT_GE(second.number, 1u);
  EXPECT_EQ(ticker.ticks(), 2u);
}

TEST(Ticker, WorkThatTakesTooLongMissesTicks) {
  constexpr std::uint64_t period = 10'000'000;
  Ticker ticker(period);
  const std::uint64_t start = monotonic_ns();
  ticker.wait(never);
  work_until(start + 35'000'000);
  const Ticker::Tick tick = ticker.wait(never);
  // Ticks 1 and 2 passed; 3 was due 5 ms ago, or a busy machine missed more.
  EXPECT_GE(tick.number, 3u);
  EXPECT_EQ(ticker.missed(), tick.number - 1);
  EXPECT_EQ(ticker.ticks(), 2u);
}

TEST(Ticker, WithoutAPeriodEveryTickIsDue) {
  Ticker ticker(0);
  for (unsigned i = 0; i < 1000; ++i) EXPECT_EQ(ticker.wait(never).number, i);
  EXPECT_EQ(ticker.missed(), 0u);
  EXPECT_EQ(ticker.late(), 0u);
}

TEST(Ticker, StoppingEndsTheWait) {
  Ticker ticker(3'600'000'000'000);
  ticker.wait(never);
  const std::uint64_t start = monotonic_ns();
  ticker.wait([] { return true; });
  EXPECT_LT(monotonic_ns() - start, 1'000'000'000u);
}

}  // namespace
}  // namespace vmsight::base_ticker_test
