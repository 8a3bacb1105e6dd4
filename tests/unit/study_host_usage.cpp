#include "study/host_usage.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <vector>

namespace vmsight::study_host_usage_test {
namespace {

TEST(HostUsage, ParsesProc) {
  EXPECT_EQ(parse_status_kib("Name:\tq\nRssAnon:\t    4096 kB\nRssFile:\t 1 kB\n", "RssAnon"),
            4096u);
  EXPECT_FALSE(parse_status_kib("Name:\tRssAnon: 5\n", "RssAnon"));
  EXPECT_FALSE(parse_status_kib("RssAnonymous:\t5 kB\n", "RssAnon"));
  EXPECT_EQ(parse_schedstat("123456789 5 6\n"), 123456789u);
  EXPECT_FALSE(parse_schedstat(""));
}

TEST(HostUsage, CountsOurOwnTime) {
  const CpuMeter meter(::getpid(), {});
  const auto before = meter.read();
  ASSERT_TRUE(before);
  volatile std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < 20'000'000; ++i) sum = sum + i;
  const auto after = meter.read();
  ASSERT_TRUE(after);
  EXPECT_GT(after->own_ns, before->own_ns + 1'000'000);
  EXPECT_GT(after->qemu_ns, before->qemu_ns + 1'000'000);
}

TEST(HostUsage, SeesMemoryGrow) {
  const MemoryMeter meter(::getpid());
  const std::uint64_t before = meter.own_anonymous_peak_kib();
  std::vector<char> block(64 << 20, 1);
  for (int i = 0; i < 200 && meter.own_anonymous_peak_kib() < before + 60000; ++i) ::usleep(10000);
  EXPECT_GE(meter.own_anonymous_peak_kib(), before + 60000);
  EXPECT_GE(meter.qemu_growth_kib(), 60000u);
  EXPECT_EQ(block[12345], 1);
}

}  // namespace
}  // namespace vmsight::study_host_usage_test
