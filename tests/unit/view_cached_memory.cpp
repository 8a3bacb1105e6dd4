#include <gtest/gtest.h>

#include <set>

#include "base/poison.h"
#include "support/byte_source.h"
#include "view/cached_memory.h"

namespace vmsight::view_cached_memory_test {
namespace {

using test::ByteMemory;
using test::ByteSource;

class CachedMemoryTest : public ::testing::Test {
 protected:
  explicit CachedMemoryTest(CacheLimits limits = {}) {
    auto source = std::make_unique<ByteSource>(bytes_);
    source_ = source.get();
    cache_ = *CachedMemory::make(std::move(source), limits);
    for (std::uint64_t i = 0; i < 64; ++i) bytes_.put(at(i), 1000 + i);
  }
  static GuestPhys at(std::uint64_t page) { return GuestPhys(page * page_size); }
  std::optional<std::uint64_t> value(GuestPhys address) {
    const std::byte* page = cache_->page(address);
    if (page == nullptr) return std::nullopt;
    std::uint64_t value = 0;
    std::memcpy(&value, page, sizeof(value));
    return value;
  }

  ByteMemory bytes_{{{GuestPhys(0), 1 << 20}, {GuestPhys(1ULL << 32), 64ULL << 30}}};
  ByteSource* source_ = nullptr;
  std::unique_ptr<CachedMemory> cache_;
};

TEST_F(CachedMemoryTest, ReadsAPageOnceAView) {
  EXPECT_EQ(value(at(3)), 1003U);
  bytes_.put(at(3), std::uint64_t{7});
  EXPECT_EQ(value(at(3) + 100), 1003U) << "cached";
  EXPECT_EQ(source_->batches.size(), 1U);
  EXPECT_EQ(cache_->counters().pages, 1U);
  EXPECT_EQ(cache_->counters().bytes, page_size);
  EXPECT_EQ(cache_->counters().calls, 1U);
  ASSERT_TRUE(cache_->refresh());
  EXPECT_EQ(value(at(3)), 7U) << "contents are never kept from view to view";
}

TEST_F(CachedMemoryTest, OutsideRamIsNull) {
  EXPECT_EQ(cache_->page(GuestPhys(1 << 20)), nullptr);
  EXPECT_EQ(cache_->page(GuestPhys(~0ULL)), nullptr);
  EXPECT_TRUE(source_->batches.empty());
  EXPECT_TRUE(cache_->health());
}

TEST_F(CachedMemoryTest, LearnsWhichPagesTheNextViewNeeds) {
  for (const std::uint64_t page : {9, 2, 5}) EXPECT_TRUE(value(at(page)));
  ASSERT_TRUE(cache_->refresh());
  EXPECT_EQ(cache_->counters().calls, 1U);
  EXPECT_EQ(cache_->counters().pages, 0U) << "fetched, but not yet used";
  ASSERT_EQ(source_->batches.size(), 4U);
  EXPECT_EQ(source_->batches.back(), (std::vector{at(2), at(5), at(9)})) << "sorted: runs merge";
  for (const std::uint64_t page : {9, 2, 5}) EXPECT_EQ(value(at(page)), 1000 + page);
  EXPECT_EQ(source_->batches.size(), 4U) << "every page was there";
}

TEST_F(CachedMemoryTest, ForgetsPagesThatAreNoLongerUsed) {
  for (const std::uint64_t page : {1, 2, 3}) EXPECT_TRUE(value(at(page)));
  ASSERT_TRUE(cache_->refresh());
  EXPECT_TRUE(value(at(2)));
  EXPECT_TRUE(value(at(0)));
  ASSERT_TRUE(cache_->refresh());
  EXPECT_EQ(source_->batches.back(), (std::vector{at(0), at(2)}));
}

TEST_F(CachedMemoryTest, PrefetchedPagesAreLearntOnlyIfUsed) {
  const std::vector hint{at(8), at(7), at(8), GuestPhys(1 << 20)};
  cache_->prefetch(hint);
  ASSERT_EQ(source_->batches.size(), 1U);
  EXPECT_EQ(source_->batches[0], (std::vector{at(7), at(8)}));
  EXPECT_EQ(value(at(8)), 1008U);
  EXPECT_EQ(source_->batches.size(), 1U);
  ASSERT_TRUE(cache_->refresh());
  EXPECT_EQ(source_->batches.back(), std::vector{at(8)});
}

TEST_F(CachedMemoryTest, PointersStayWhereTheyAre) {
  const std::byte* first = cache_->page(at(0));
  std::vector<const std::byte*> pages;
  for (std::uint64_t i = 0; i < 5000; ++i)
    pages.push_back(cache_->page(GuestPhys((1ULL << 32) + i * page_size)));
  EXPECT_EQ(cache_->page(at(0)), first);
  std::uint64_t value = 0;
  std::memcpy(&value, first, sizeof(value));
  EXPECT_EQ(value, 1000U);
  EXPECT_EQ(std::set(pages.begin(), pages.end()).size(), 5000U);
}

TEST_F(CachedMemoryTest, ForgottenPagesAreReadAgainInOneBatch) {
  for (const std::uint64_t page : {1, 2, 3}) EXPECT_TRUE(value(at(page)));
  for (const std::uint64_t page : {1, 2, 3}) bytes_.put(at(page), 2000 + page);
  const std::vector again{at(1), at(3), at(30)};
  cache_->forget(again);
  EXPECT_EQ(value(at(3)), 2003U);
  EXPECT_EQ(value(at(1)), 2001U);
  EXPECT_EQ(value(at(2)), 1002U) << "not forgotten";
  EXPECT_EQ(source_->batches.size(), 4U);
  EXPECT_EQ(cache_->counters().pages, 3U) << "distinct";
}

TEST_F(CachedMemoryTest, WhatAHintFetchedAnewStays) {
  EXPECT_TRUE(value(at(1)));
  const std::vector one{at(1)};
  cache_->forget(one);
  cache_->prefetch(one);
  EXPECT_EQ(value(at(1)), 1001U);
  bytes_.put(at(1), 2001);
  EXPECT_EQ(value(at(2)), 1002U);
  EXPECT_EQ(value(at(1)), 1001U) << "it was shown in this view";
}

TEST_F(CachedMemoryTest, ABadPageIsNullAndTheRestGoesOn) {
  source_->bad = {at(4)};
  EXPECT_EQ(value(at(4)), std::nullopt);
  EXPECT_EQ(value(at(5)), 1005U);
  EXPECT_TRUE(cache_->health());
  source_->bad.clear();
  EXPECT_EQ(value(at(4)), 1004U) << "asked again";
}

TEST_F(CachedMemoryTest, AFailureStopsReadingAndShowsInHealth) {
  EXPECT_TRUE(value(at(1)));
  source_->failure = Error{.code = ErrorCode::vm_gone, .message = "gone"};
  EXPECT_EQ(value(at(2)), std::nullopt);
  ASSERT_FALSE(cache_->health());
  EXPECT_EQ(cache_->health().error().code, ErrorCode::vm_gone);
  ASSERT_FALSE(cache_->refresh());
  source_->failure.reset();
  EXPECT_TRUE(cache_->refresh());
  EXPECT_TRUE(cache_->health());
}

TEST_F(CachedMemoryTest, FreshReadsBypassTheCache) {
  EXPECT_TRUE(value(at(1)));
  bytes_.put(at(1), std::uint64_t{7});
  std::uint64_t inside = 0, outside = 0, crossing = 0;
  std::vector<FreshRead> reads{
      {at(1), std::as_writable_bytes(std::span(&inside, 1))},
      {GuestPhys(1 << 20), std::as_writable_bytes(std::span(&outside, 1))},
      {at(2) - 4, std::as_writable_bytes(std::span(&crossing, 1))},
  };
  ASSERT_TRUE(cache_->read_fresh(reads));
  EXPECT_TRUE(reads[0].ok);
  EXPECT_EQ(inside, 7U);
  EXPECT_FALSE(reads[1].ok);
  EXPECT_FALSE(reads[2].ok);
  EXPECT_EQ(value(at(1)), 1001U);
}

TEST_F(CachedMemoryTest, PagesHandedOutAreNotTouchedAfterTheirView) {
  if (!poisons) GTEST_SKIP() << "only AddressSanitizer can tell";
  const auto touch = [](const std::byte* page) { return std::to_integer<int>(*page); };
  const std::byte* page = cache_->page(at(1));
  ASSERT_TRUE(cache_->refresh());
  EXPECT_DEATH(touch(page), "use-after-poison");
  page = cache_->page(at(1));
  EXPECT_EQ(touch(page), 1001 & 0xff);
  const std::vector again{at(1)};
  cache_->forget(again);
  EXPECT_DEATH(touch(page), "use-after-poison");
  EXPECT_EQ(value(at(1)), 1001U);
}

class SmallCacheTest : public CachedMemoryTest {
 protected:
  SmallCacheTest() : CachedMemoryTest({.max_pages = 8}) {}
};

TEST_F(SmallCacheTest, AFullCacheIsAnErrorNotAWrongPage) {
  for (std::uint64_t page = 0; page < 8; ++page) EXPECT_EQ(value(at(page)), 1000 + page);
  EXPECT_EQ(value(at(8)), std::nullopt);
  ASSERT_FALSE(cache_->health());
  EXPECT_EQ(cache_->health().error().code, ErrorCode::unsupported);
  EXPECT_EQ(value(at(0)), 1000U) << "what is there stays";
  EXPECT_TRUE(cache_->refresh());
  EXPECT_TRUE(cache_->health());
}

}  // namespace
}  // namespace vmsight::view_cached_memory_test
