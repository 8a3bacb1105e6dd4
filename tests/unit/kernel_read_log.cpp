// What was read is noted, and found to differ where it does.
#include "kernel/read_log.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "support/synthetic_guest.h"
#include "vmsight/reader.h"

namespace vmsight::kernel_read_log_test {
namespace {

using test::SyntheticGuest;

class ReadLogTest : public ::testing::Test {
 protected:
  ReadLogTest() {
    log_.begin();
    log_.begin_part("first");
    reader_.record_to(&log_);
  }

  std::optional<ReadLog::Change> changed() { return log_.changed(guest_.memory(), space_).value(); }
  /// What is read is the same afterwards; one byte of it that changes is found, and changed back is not.
  void proves(GuestVirt at, const std::function<void()>& read) {
    log_.begin();
    log_.begin_part("part");
    read();
    EXPECT_TRUE(reader_.ok());
    EXPECT_FALSE(changed());
    Reader plain(guest_.memory(), space_);
    const std::uint8_t before = plain.u8(at);
    guest_.put(at, static_cast<std::uint8_t>(before ^ 1));
    const auto found = changed();
    guest_.put(at, before);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->part, "part");
    EXPECT_FALSE(changed());
  }

  static constexpr GuestVirt vmalloc{0xffffc90000000000};
  SyntheticGuest guest_;
  AddressSpace space_ = guest_.space();
  Reader reader_{guest_.memory(), space_};
  ReadLog log_;
};

TEST_F(ReadLogTest, WordsOfEachSize) {
  const GuestVirt at = guest_.allocate(page_size, page_size);
  guest_.put(at, std::uint64_t{0x1122334455667788});
  proves(at, [&] { reader_.u8(at); });
  proves(at + 1, [&] { reader_.u16(at); });
  proves(at + 3, [&] { reader_.u32(at); });
  proves(at + 7, [&] { reader_.u64(at); });
  const GuestVirt last = at + (page_size - 1);  // nothing behind it belongs to it
  proves(last, [&] { reader_.u8(last); });
  proves(last, [&] { reader_.u32(last - 3); });
  // What is beside a word does not matter.
  log_.begin();
  reader_.u16(at + 2);
  guest_.put(at, std::uint16_t{1});
  guest_.put(at + 4, std::uint32_t{1});
  EXPECT_FALSE(changed());
}

TEST_F(ReadLogTest, LongOnesAndThoseThatCrossPages) {
  guest_.map_scattered(vmalloc, 3 * page_size);
  std::array<std::byte, 2 * page_size> bytes{};
  for (const std::uint64_t offset : {std::uint64_t{100}, std::uint64_t{page_size}, 8191UL})
    proves(vmalloc + offset, [&] { reader_.copy(vmalloc + 100, bytes); });
  const GuestVirt edge = vmalloc + (page_size - 4);
  proves(edge, [&] { reader_.u64(edge); });
  proves(edge + 7, [&] { reader_.u64(edge); });
  guest_.put(edge, std::array<char, 12>{"name of one"});
  std::array<char, 64> name{};
  proves(edge + 11,
         [&] { EXPECT_EQ(reader_.c_string(edge, name), "name of one"); });  // its end, too
  log_.begin();
  reader_.c_string(edge, name);
  guest_.put(edge + 12, std::uint8_t{7});  // behind it
  EXPECT_FALSE(changed());
}

TEST_F(ReadLogTest, APageThatIsMappedElsewhere) {
  const GuestPhys one = guest_.allocate_phys(page_size, page_size),
                  other = guest_.allocate_phys(page_size, page_size);
  guest_.map(vmalloc, one, test::MapSize::page_4k, test::pte::present);
  guest_.put(vmalloc, std::uint64_t{1});
  log_.begin();
  reader_.u64(vmalloc);
  EXPECT_FALSE(changed());
  guest_.map(vmalloc, other, test::MapSize::page_4k, test::pte::present);
  EXPECT_TRUE(changed());
  guest_.put(vmalloc, std::uint64_t{1});  // the same there
  EXPECT_FALSE(changed());
}

TEST_F(ReadLogTest, WhatWasNotThereMayNotCome) {
  log_.begin();
  reader_.u64(vmalloc);
  EXPECT_FALSE(reader_.ok());
  EXPECT_FALSE(changed());
  guest_.map(vmalloc, guest_.allocate_phys(page_size, page_size), test::MapSize::page_4k,
             test::pte::present);
  EXPECT_TRUE(changed());
}

TEST_F(ReadLogTest, OfAProcessTheRestMayNotCome) {
  const GuestVirt at{0x400000};
  const GuestPhys page = guest_.allocate_phys(page_size, page_size);
  guest_.map(at, page, test::MapSize::page_4k, test::pte::present);
  const std::array<std::byte, 8> bytes{};
  log_.begin();
  log_.note_user(space_.root(), at + (page_size - 8), bytes, true);
  EXPECT_FALSE(changed());
  guest_.map(at + page_size, page, test::MapSize::page_4k, test::pte::present);
  EXPECT_TRUE(changed());
  log_.begin();
  log_.note_user(space_.root(), at, bytes, false);
  EXPECT_FALSE(changed());
  guest_.put(GuestVirt(at), std::uint8_t{1});
  EXPECT_TRUE(changed());
}

TEST_F(ReadLogTest, WhatMovesAllTheTimeIsLeftOut) {
  const GuestVirt at = guest_.allocate(64);
  {
    const Unrecorded moving(reader_);
    reader_.u64(at);
  }
  EXPECT_EQ(log_.reads(), 0U);
  reader_.u64(at + 8);
  EXPECT_EQ(log_.reads(), 1U);
}

TEST_F(ReadLogTest, TellsThePart) {
  const GuestVirt at = guest_.allocate(64);
  reader_.u64(at);
  log_.begin_part("empty");
  log_.begin_part("second");
  reader_.u64(at + 8);
  reader_.u64(at + 16);
  guest_.put(at + 16, std::uint64_t{1});
  EXPECT_EQ(changed()->part, "second");
  EXPECT_EQ(changed()->at, at + 16);
  guest_.put(at, std::uint64_t{1});
  EXPECT_EQ(changed()->part, "first");
}

TEST_F(ReadLogTest, TooMuchIsSaid) {
  const std::vector<std::byte> some(std::size_t{1} << 20);
  for (unsigned i = 0; i < 64; ++i) log_.note(vmalloc, some);
  EXPECT_FALSE(log_.is_full());
  log_.note(vmalloc, some);
  EXPECT_TRUE(log_.is_full());
  log_.begin();
  EXPECT_FALSE(log_.is_full());
}

}  // namespace
}  // namespace vmsight::kernel_read_log_test
