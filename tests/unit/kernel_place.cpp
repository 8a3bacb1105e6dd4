#include "kernel/place.h"

#include <gtest/gtest.h>

namespace vmsight::kernel_place_test {
namespace {

constexpr std::uint64_t second = 1'000'000'000;

KernelPlace example(unsigned rate = 250) {
  return {.rodata = GuestPhys(0x3a00000),
          .ticks = 4'294'892'296,
          .at_ns = 1000 * second,
          .ticks_a_second = rate};
}

TEST(KernelPlaceTest, TextRoundTrip) {
  const auto place = parse_place(format_place(example()));
  ASSERT_TRUE(place) << place.error().message;
  EXPECT_EQ(*place, example());
  const std::string text = format_place(example());
  for (std::size_t size = 0; size < text.size(); ++size)
    EXPECT_FALSE(parse_place(std::string_view(text).substr(0, size))) << size;
  EXPECT_FALSE(parse_place(text + "x"));
  EXPECT_FALSE(parse_place("vmsight-place 1 1 2 3 99999999999\n"));
}

TEST(KernelPlaceTest, AClockThatRanAllTheTimeKeepsPace) {
  const KernelPlace place = example();
  const auto after = [&](std::uint64_t seconds, std::uint64_t ticks) {
    return keeps_pace(place, place.ticks + ticks, place.at_ns + seconds * second);
  };
  EXPECT_TRUE(after(0, 0));
  EXPECT_TRUE(after(100, 25'000));
  EXPECT_TRUE(after(100, 24'750)) << "an idle guest's clock is a second behind";
  EXPECT_FALSE(after(100, 24'700)) << "it stands since more than a second";
  EXPECT_FALSE(after(100, 0));
  EXPECT_FALSE(after(100, 26'000));
  EXPECT_FALSE(after(100, 1ULL << 60));
  EXPECT_FALSE(keeps_pace(place, place.ticks - 1, place.at_ns + second)) << "it began anew";
  EXPECT_FALSE(keeps_pace(place, place.ticks, place.at_ns - second)) << "a time to come";
  EXPECT_FALSE(keeps_pace(example(0), place.ticks, place.at_ns)) << "no rate is known";
}

TEST(KernelPlaceTest, TheRateFollowsFromTwoReadings) {
  const KernelPlace place = example(0);
  for (const unsigned rate : {100U, 250U, 300U, 1000U}) {
    for (const std::uint64_t seconds : {25ULL, 4000ULL}) {
      EXPECT_EQ(rate_between(place, place.ticks + seconds * rate, place.at_ns + seconds * second),
                rate);
    }
  }
  EXPECT_EQ(rate_between(place, place.ticks + 250, place.at_ns + second), 0U) << "too early";
  EXPECT_EQ(rate_between(place, place.ticks + 25 * 270, place.at_ns + 25 * second), 0U);
  EXPECT_EQ(rate_between(place, place.ticks, place.at_ns + 100 * second), 0U);
}

}  // namespace
}  // namespace vmsight::kernel_place_test
