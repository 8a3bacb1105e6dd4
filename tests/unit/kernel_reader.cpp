// Reader over the synthetic guest: sticky faults, page crossing, refetching; and the synthetic
// guest itself, whose windows and page tables must agree.
#include <gtest/gtest.h>

#include <array>

#include "support/byte_source.h"
#include "support/faulty_memory.h"
#include "support/synthetic_guest.h"
#include "view/cached_memory.h"
#include "vmsight/reader.h"

namespace vmsight::kernel_reader_test {
namespace {

using test::mib;
using test::SyntheticGuest;
using test::SyntheticOptions;

constexpr GuestVirt vmalloc(0xffffc90000000000);

class ReaderTest : public ::testing::TestWithParam<bool> {
 protected:
  ReaderTest() : guest_(SyntheticOptions{.five_level = GetParam()}) {}
  SyntheticGuest guest_;
  AddressSpace space_ = guest_.space();
  Reader reader_{guest_.memory(), space_};
};

TEST_P(ReaderTest, ReadsScalarsAndPointers) {
  const GuestVirt object = guest_.allocate(64);
  guest_.put(object, std::uint64_t{0x1122334455667788});
  EXPECT_EQ(reader_.u64(object), 0x1122334455667788U);
  EXPECT_EQ(reader_.u32(object + 4), 0x11223344U);
  EXPECT_EQ(reader_.u16(object), 0x7788U);
  EXPECT_EQ(reader_.u8(object + 7), 0x11U);
  guest_.put_pointer(object + 8, object);
  EXPECT_EQ(reader_.pointer(object + 8), object);
  EXPECT_TRUE(reader_.ok());
}

TEST_P(ReaderTest, CrossesPagesThatAreNotNeighbours) {
  guest_.map_scattered(vmalloc, 3 * page_size);
  std::vector<std::byte> pattern(2 * page_size);
  for (std::size_t i = 0; i < pattern.size(); ++i) pattern[i] = std::byte(i * 7 + i / 256);
  guest_.write(vmalloc + 100, pattern);
  std::vector<std::byte> copy(pattern.size());
  EXPECT_EQ(reader_.copy(vmalloc + 100, copy), copy.size());
  EXPECT_EQ(copy, pattern);

  guest_.put(vmalloc + page_size - 4, std::uint64_t{0x1122334455667788});
  EXPECT_EQ(reader_.u64(vmalloc + page_size - 4), 0x1122334455667788U);
  EXPECT_TRUE(reader_.ok());
}

TEST_P(ReaderTest, TheFirstFaultSticks) {
  const GuestVirt object = guest_.allocate(8);
  guest_.put(object, std::uint64_t{5});
  EXPECT_EQ(reader_.u64(GuestVirt(0x1000)), 0U);
  EXPECT_EQ(reader_.u64(GuestVirt(0x2000)), 0U);
  EXPECT_FALSE(reader_.ok());
  EXPECT_EQ(reader_.fault(), GuestVirt(0x1000));
  EXPECT_EQ(reader_.u64(object), 5U) << "good reads go on";
  EXPECT_FALSE(reader_.ok());
  reader_.begin_object();
  EXPECT_TRUE(reader_.ok());
}

TEST_P(ReaderTest, ACopyTellsHowFarItCame) {
  guest_.map_scattered(vmalloc, page_size);
  std::vector<std::byte> copy(2 * page_size, std::byte{0xee});
  EXPECT_EQ(reader_.copy(vmalloc + 100, copy), page_size - 100);
  EXPECT_EQ(copy[page_size - 100], std::byte{0xee}) << "never filled with zeros";
  EXPECT_EQ(reader_.fault(), vmalloc + page_size);
  reader_.clear_fault();
  EXPECT_EQ(reader_.u64(vmalloc + page_size - 4), 0U) << "half a scalar is none";
  EXPECT_FALSE(reader_.ok());
}

TEST_P(ReaderTest, Strings) {
  std::array<char, 16> buffer;
  EXPECT_EQ(reader_.c_string(guest_.place_string("kworker/0:1"), buffer), "kworker/0:1");
  EXPECT_EQ(reader_.c_string(guest_.place_string("longer than the buffer is"), buffer),
            "longer than the ");
  guest_.map_scattered(vmalloc, 2 * page_size);
  guest_.write(vmalloc + page_size - 3, std::as_bytes(std::span("crossing")));
  EXPECT_EQ(reader_.c_string(vmalloc + page_size - 3, buffer), "crossing");
  EXPECT_TRUE(reader_.ok());
}

TEST_P(ReaderTest, MembersAndBitfields) {
  const GuestVirt object = guest_.allocate(32);
  guest_.put(object + 8, std::uint64_t{0b1011'0110});
  EXPECT_EQ(reader_.value(object, {.offset = 8, .size = 1}), 0xb6U);
  EXPECT_EQ(reader_.value(object, {.offset = 8, .size = 4, .bit_offset = 1, .bit_size = 3}), 3U);
  EXPECT_EQ(reader_.value(object, {.offset = 8, .size = 4, .bit_offset = 7, .bit_size = 1}), 1U);
}

TEST_P(ReaderTest, WindowsAgreeWithThePageTables) {
  const AddressSpace walked = guest_.walked_space();
  const std::vector<GuestVirt> addresses{guest_.direct(GuestPhys(0)),
                                         guest_.direct(GuestPhys(5 * mib + 0x123)),
                                         guest_.direct(GuestPhys(64 * mib)),
                                         guest_.image(0),
                                         guest_.image(3 * mib + 8),
                                         guest_.image(guest_.options().image_size - 1),
                                         guest_.image(guest_.options().image_size),
                                         GuestVirt(0),
                                         GuestVirt(~0ULL)};
  for (const GuestVirt va : addresses) {
    EXPECT_EQ(space_.translate(guest_.memory(), va), walked.translate(guest_.memory(), va))
        << fmt::format("{}", va);
  }
}

TEST_P(ReaderTest, ProcessTablesShareTheKernelHalf) {
  const GuestPhys root = guest_.new_address_space();
  const GuestVirt user(0x7f0000001000);
  guest_.map_in(root, user, guest_.allocate_phys(page_size, page_size));
  guest_.write_in(root, user, std::as_bytes(std::span("argv")));
  const AddressSpace process(x86_64, root, GetParam() ? 5 : 4);
  Reader reader(guest_.memory(), process);
  std::array<char, 16> buffer;
  EXPECT_EQ(reader.c_string(user, buffer), "argv");
  EXPECT_EQ(reader.c_string(guest_.place_string("kernel"), buffer), "kernel");
  EXPECT_TRUE(reader.ok());
  EXPECT_EQ(reader_.u8(user), 0U) << "the kernel's own table has no user half";
  EXPECT_FALSE(reader_.ok());
}

TEST_P(ReaderTest, RefetchReadsTheObjectAnew) {
  // Each reading of the page differs in its first word, as under a guest that runs.
  std::uint64_t readings = 0;
  test::FaultyMemory changing(guest_.memory(),
                              {.change = [&](GuestPhys, std::span<std::byte> bytes) {
                                ++readings;
                                std::memcpy(bytes.data(), &readings, sizeof(readings));
                              }});
  const GuestVirt object = guest_.allocate(page_size, page_size);
  Reader reader(changing, space_);
  reader.begin_object();
  const std::uint64_t first = reader.u64(object);
  EXPECT_EQ(reader.u64(object), first);
  reader.refetch();
  reader.begin_object();
  EXPECT_GT(reader.u64(object), first);
}

TEST_P(ReaderTest, RefetchFollowsAPageThatMoved) {
  test::FaultyMemory cached(guest_.memory(),
                            {});  // keeps a page as first read until it is forgotten
  const GuestPhys before = guest_.allocate_phys(page_size, page_size);
  const GuestPhys after = guest_.allocate_phys(page_size, page_size);
  guest_.map(vmalloc, before);
  guest_.put(vmalloc, std::uint64_t{1});
  Reader reader(cached, space_);
  EXPECT_EQ(reader.u64(guest_.direct(after)), 0U) << "the new place is in the cache too";
  reader.begin_object();
  EXPECT_EQ(reader.u64(vmalloc), 1U);

  guest_.unmap(vmalloc);
  guest_.map(vmalloc, after);
  guest_.put(vmalloc, std::uint64_t{2});
  reader.refetch();
  reader.begin_object();
  EXPECT_EQ(reader.u64(vmalloc), 2U);
  EXPECT_TRUE(reader.ok());
}

TEST_P(ReaderTest, RefetchFindsAPageThatWasNotMapped) {
  test::FaultyMemory cached(guest_.memory(), {});
  const GuestVirt next = vmalloc + page_size;  // the tables exist, its entry does not
  guest_.map(vmalloc, guest_.allocate_phys(page_size, page_size));
  Reader reader(cached, space_);
  reader.begin_object();
  EXPECT_EQ(reader.u64(next), 0U);
  EXPECT_FALSE(reader.ok());

  guest_.map(next, guest_.allocate_phys(page_size, page_size));
  guest_.put(next, std::uint64_t{3});
  reader.refetch();
  reader.begin_object();
  EXPECT_EQ(reader.u64(next), 3U);
  EXPECT_TRUE(reader.ok());
}

/// A page cache that sorts its pages anew for each view, as every access but mappings has it.
class ReaderOfViewsTest : public ReaderTest {
 protected:
  void put(std::uint64_t low, std::uint64_t high) {
    guest_.put(low_, low);
    guest_.put(high_, high);
  }
  GuestVirt low_ = guest_.allocate(page_size, page_size);
  GuestVirt high_ = guest_.allocate(page_size, page_size);
  std::unique_ptr<CachedMemory> cache_ =
      *CachedMemory::make(std::make_unique<test::ByteSource>(guest_.memory()));
  Reader cached_reader_{*cache_, space_};
};

TEST_P(ReaderOfViewsTest, SeesThatAViewBegan) {
  put(1, 2);
  EXPECT_EQ(cached_reader_.u64(high_), 2U);  // in the first frame, and in the second of the next
  EXPECT_EQ(cached_reader_.u64(low_), 1U);
  put(3, 4);
  EXPECT_EQ(cached_reader_.u64(high_), 2U) << "a view does not change";
  ASSERT_TRUE(cache_->refresh());
  EXPECT_EQ(cached_reader_.u64(high_), 4U);
  EXPECT_EQ(cached_reader_.u64(low_), 3U);
}

TEST_P(ReaderOfViewsTest, SeesThatAnotherReaderForgotPages) {
  put(1, 2);
  EXPECT_EQ(cached_reader_.u64(low_), 1U);
  Reader other(*cache_, space_);
  other.begin_object();
  EXPECT_EQ(other.u64(low_), 1U);
  put(3, 4);
  other.refetch();
  EXPECT_EQ(cached_reader_.u64(low_), 3U);
}

TEST_P(ReaderOfViewsTest, RefetchesWhatItReadBeforeTheViewBegan) {
  put(1, 2);
  cached_reader_.begin_object();
  EXPECT_EQ(cached_reader_.u64(low_), 1U);
  ASSERT_TRUE(cache_->refresh());
  EXPECT_EQ(cached_reader_.u64(high_), 2U);
  put(3, 4);
  cached_reader_.refetch();
  EXPECT_EQ(cached_reader_.u64(low_), 3U);
  EXPECT_EQ(cached_reader_.u64(high_), 4U);
}

std::string levels(const testing::TestParamInfo<bool>& info) {
  return info.param ? "FiveLevels" : "FourLevels";
}

INSTANTIATE_TEST_SUITE_P(Levels, ReaderOfViewsTest, ::testing::Bool(), levels);
INSTANTIATE_TEST_SUITE_P(Levels, ReaderTest, ::testing::Bool(), levels);

TEST(FaultyMemory, IsTheSameForTheSameSeed) {
  SyntheticGuest guest;
  const test::FaultPolicy policy{.seed = 42, .missing = 6000, .corrupt = 20000};
  const auto digest = [&](std::uint64_t seed) {
    test::FaultPolicy seeded = policy;
    seeded.seed = seed;
    test::FaultyMemory memory(guest.memory(), seeded);
    std::vector<std::uint64_t> sums;
    for (std::uint64_t pfn = 0; pfn < 1000; ++pfn) {
      const std::byte* page = memory.page(GuestPhys(pfn * page_size));
      std::uint64_t sum = page == nullptr ? 1 : 0;
      for (std::size_t i = 0; page != nullptr && i < page_size; ++i) {
        sum = sum * 31 + std::to_integer<unsigned>(page[i]);
      }
      sums.push_back(sum);
    }
    return sums;
  };
  EXPECT_EQ(digest(42), digest(42));
  EXPECT_NE(digest(42), digest(43));
}

TEST(FaultyMemory, TheVmDiesInTheMiddle) {
  SyntheticGuest guest;
  test::FaultyMemory memory(guest.memory(), {.gone_after = 3});
  for (int i = 0; i < 3; ++i) EXPECT_NE(memory.page(GuestPhys(0)), nullptr);
  EXPECT_EQ(memory.page(GuestPhys(0)), nullptr);
  ASSERT_FALSE(memory.health());
  EXPECT_EQ(memory.health().error().code, ErrorCode::vm_gone);
  EXPECT_FALSE(memory.refresh());
}

}  // namespace
}  // namespace vmsight::kernel_reader_test
