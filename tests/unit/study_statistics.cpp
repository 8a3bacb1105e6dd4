#include "study/statistics.h"

#include <gtest/gtest.h>

namespace vmsight::study_statistics_test {
namespace {

TEST(Spread, OfNothingIsZero) {
  const Spread spread = spread_of({});
  EXPECT_EQ(spread.count, 0u);
  EXPECT_EQ(spread.median, 0);
}

TEST(Spread, InterpolatesAndIgnoresOrder) {
  const std::vector<double> values{9, 1, 5, 3};
  const Spread spread = spread_of(values);
  EXPECT_EQ(spread.count, 4u);
  EXPECT_DOUBLE_EQ(spread.median, 4);
  EXPECT_DOUBLE_EQ(spread.q1, 2.5);
  EXPECT_DOUBLE_EQ(spread.q3, 6);
  EXPECT_DOUBLE_EQ(spread.smallest, 1);
  EXPECT_DOUBLE_EQ(spread.largest, 9);
  EXPECT_DOUBLE_EQ(spread.mad, 2);  // distances 5 3 1 1
}

TEST(Spread, OneOutlierMovesNeitherMedianNorMad) {
  const std::vector<double> values{10, 11, 10, 9, 100000};
  EXPECT_DOUBLE_EQ(spread_of(values).median, 10);
  EXPECT_DOUBLE_EQ(spread_of(values).mad, 1);
}

TEST(Quantile, EndsAreTheEnds) {
  const std::vector<double> values{1, 2, 4};
  EXPECT_DOUBLE_EQ(quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(values, 1), 4);
  EXPECT_DOUBLE_EQ(quantile(values, 0.75), 3);
}

TEST(Samples, KeepsAllThatFit) {
  Samples samples(8);
  for (int i = 0; i < 8; ++i) samples.add(i);
  EXPECT_EQ(samples.kept(), 8u);
  EXPECT_DOUBLE_EQ(samples.spread().median, 3.5);
}

TEST(Samples, StaysBoundedAndEven) {
  Samples samples(64);
  for (int i = 0; i < 100000; ++i) samples.add(i);
  EXPECT_LE(samples.kept(), 64u);
  EXPECT_GE(samples.kept(), 32u);
  EXPECT_NEAR(samples.spread().median, 50000, 5000);
  EXPECT_NEAR(samples.spread().q1, 25000, 5000);
  EXPECT_NEAR(samples.spread().largest, 100000, 5000);
}

}  // namespace
}  // namespace vmsight::study_statistics_test
