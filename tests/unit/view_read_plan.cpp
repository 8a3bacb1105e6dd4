#include "view/read_plan.h"

#include <gtest/gtest.h>

#include <array>

namespace vmsight::view_read_plan_test {
namespace {

RamMap ram() {
  std::vector<RamRange> ranges;
  ranges.push_back({.start = GuestPhys(0), .size = 0x10000});
  ranges.push_back({.start = GuestPhys(0x11000), .size = 0x10000});
  return RamMap::from(std::move(ranges)).value();
}

struct Reads {
  std::vector<std::array<std::byte, page_size>> buffers;
  std::vector<FreshRead> reads;
  explicit Reads(std::vector<std::pair<std::uint64_t, std::size_t>> wanted) {
    buffers.resize(wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      reads.push_back({.from = GuestPhys(wanted[i].first),
                       .into = std::span(buffers[i]).first(wanted[i].second)});
    }
  }
};

TEST(ReadPlan, JoinsNeighboursInAnyOrder) {
  Reads reads({{0x3000, page_size}, {0x1000, page_size}, {0x2000, page_size}});
  const ReadPlan plan(reads.reads, ram(), {.max_size = 0x10000});
  ASSERT_EQ(plan.runs().size(), 1u);
  EXPECT_EQ(plan.runs()[0].start, GuestPhys(0x1000));
  EXPECT_EQ(plan.runs()[0].size, 0x3000u);
}

TEST(ReadPlan, KeepsToItsLimits) {
  Reads reads({{0x1000, page_size}, {0x2000, page_size}, {0x4000, page_size}});
  EXPECT_EQ(ReadPlan(reads.reads, ram(), {.max_size = page_size}).runs().size(), 3u);
  EXPECT_EQ(ReadPlan(reads.reads, ram(), {.max_size = 0x10000}).runs().size(), 2u);
  EXPECT_EQ(ReadPlan(reads.reads, ram(), {.max_gap = page_size, .max_size = 0x10000}).runs().size(),
            1u);
}

TEST(ReadPlan, NeverReadsBetweenRanges) {
  Reads reads({{0xf000, page_size}, {0x11000, page_size}});
  const ReadPlan plan(reads.reads, ram(), {.max_gap = 0x100000, .max_size = 0x100000});
  ASSERT_EQ(plan.runs().size(), 2u);
  EXPECT_EQ(plan.runs()[0].size, page_size);
}

TEST(ReadPlan, RunsAreWholeUnits) {
  Reads reads({{0x1003, 2}, {0x1004, 9}, {0x1ffe, 2}});
  const ReadPlan plan(reads.reads, ram(), {.unit = 8});
  ASSERT_EQ(plan.runs().size(), 2u);
  EXPECT_EQ(plan.runs()[0].start, GuestPhys(0x1000));
  EXPECT_EQ(plan.runs()[0].size, 16u);
  EXPECT_EQ(plan.runs()[1].start, GuestPhys(0x1ff8));
  EXPECT_EQ(plan.runs()[1].size, 8u);
}

TEST(ReadPlan, DeliversToEveryRead) {
  Reads reads({{0x1010, 4}, {0x1000, 2}, {0x1001, 3}, {0x1030, 8}});
  ReadPlan plan(reads.reads, ram(), {.max_gap = 64});
  ASSERT_EQ(plan.runs().size(), 1u);
  std::vector<std::byte> bytes(plan.runs()[0].size);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  plan.deliver(plan.runs()[0], std::span(bytes).first(0x30));
  EXPECT_TRUE(reads.reads[0].ok && reads.reads[1].ok && reads.reads[2].ok);
  EXPECT_FALSE(reads.reads[3].ok);  // its bytes did not come
  EXPECT_EQ(reads.buffers[0][3], std::byte{0x13});
  EXPECT_EQ(reads.buffers[2][0], std::byte{0x01});
}

TEST(ReadPlan, NothingToRead) { EXPECT_TRUE(ReadPlan({}, ram(), {}).runs().empty()); }

}  // namespace
}  // namespace vmsight::view_read_plan_test
