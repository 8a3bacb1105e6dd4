#include <gtest/gtest.h>

#include "state/kernel_log.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::state_kernel_log_test {
namespace {

using test::MadeUpKernel;
using test::SyntheticGuest;

TEST(LogBlock, WithinOneTurn) {
  const auto block = log_block(0x1010, 0x1040, 8);
  ASSERT_TRUE(block);
  EXPECT_EQ(block->offset, 0x10U);
  EXPECT_EQ(block->size, 0x30U);
}

TEST(LogBlock, MovedToTheStartOfTheNextTurn) {
  const auto block = log_block(0x10f0, 0x1120, 8);
  ASSERT_TRUE(block);
  EXPECT_EQ(block->offset, 0U);
  EXPECT_EQ(block->size, 0x20U);
}

TEST(LogBlock, EndsExactlyAtTheEnd) {
  const auto block = log_block(0x10f0, 0x1100, 8);
  ASSERT_TRUE(block);
  EXPECT_EQ(block->offset, 0xf0U);
  EXPECT_EQ(block->size, 0x10U);
}

TEST(LogBlock, Contradictions) {
  EXPECT_FALSE(log_block(0x1040, 0x1010, 8));  // ends before it begins
  EXPECT_FALSE(log_block(0x1040, 0x1340, 8));  // longer than the ring
  EXPECT_FALSE(log_block(0x1011, 0x1040, 8));  // not aligned
  EXPECT_FALSE(log_block(0x1010, 0x1014, 8));  // no room for its id
}

/// A ring of 8 records and 256 bytes.
class KernelLog : public ::testing::Test {
 protected:
  static constexpr unsigned count_bits = 3, size_bits = 8;
  static constexpr std::uint64_t id_mask = (1ULL << 62) - 1;
  static constexpr std::uint64_t first_id = (0 - (1ULL << count_bits)) & id_mask;  // seq 0

  SyntheticGuest guest_;
  MadeUpKernel kernel_{guest_};
  Reader reader_{guest_.memory(), kernel_.space()};
  StateOptions options_;
  State state_;
  Context context_{kernel_, reader_, options_, state_, {}, {}};
  GuestVirt ring_ = guest_.allocate(4096), descs_ = guest_.allocate(4096),
            infos_ = guest_.allocate(4096), data_ = guest_.allocate(256, 256);
  std::uint64_t next_ = 0;  // position in the data ring

  void SetUp() override {
    kernel_.set("printk_info", "facility", {64, 1, 0, 0, 1});
    kernel_.set("printk_info", "level", {65, 1, 5, 3, 1});
    kernel_.set_size("prb_desc", 128);
    kernel_.set_size("printk_info", 128);
    guest_.put_pointer(*kernel_.symbol("prb"), ring_);
    put("desc_ring.count_bits", count_bits);
    put("desc_ring.descs", descs_.raw());
    put("desc_ring.infos", infos_.raw());
    put("text_data_ring.size_bits", size_bits);
    put("text_data_ring.data", data_.raw());
    bounds(0, 0);
  }
  template <typename T>
  void put(std::string_view path, const T& value) {
    kernel_.put(ring_, "printk_ringbuffer", path, value);
  }
  void bounds(std::uint64_t oldest, std::uint64_t newest) {
    put("desc_ring.tail_id", (first_id + oldest) & id_mask);
    put("desc_ring.head_id", (first_id + newest) & id_mask);
  }
  GuestVirt slot(GuestVirt array, std::uint64_t seq) { return array + seq % 8 * 128; }

  void info(std::uint64_t seq, std::uint64_t length) {
    const GuestVirt at = slot(infos_, seq);
    kernel_.put(at, "printk_info", "seq", seq);
    kernel_.put(at, "printk_info", "ts_nsec", 1000 + seq);
    kernel_.put(at, "printk_info", "text_len", length);
    guest_.put<std::uint8_t>(at + 64, 3);              // facility daemon
    guest_.put<std::uint8_t>(at + 65, 6 << 5 | 0x1f);  // level info, all flags
  }
  void descriptor(std::uint64_t seq, std::uint64_t state, std::uint64_t begin, std::uint64_t end) {
    const GuestVirt at = slot(descs_, seq);
    kernel_.put(at, "prb_desc", "state_var", state << 62 | ((first_id + seq) & id_mask));
    kernel_.put(at, "prb_desc", "text_blk_lpos.begin", begin);
    kernel_.put(at, "prb_desc", "text_blk_lpos.next", end);
  }
  /// Adds a record as the kernel does: a block that does not fit moves to the ring's start.
  void record(std::uint64_t seq, std::string_view text, std::uint64_t state = 2) {
    const std::uint64_t size = (8 + text.size() + 7) & ~7ULL, begin = next_;
    std::uint64_t place = begin;
    if (begin % 256 + size > 256) place = (begin | 255) + 1;
    next_ = place + size;
    const GuestVirt block = data_ + place % 256;
    guest_.put(block, (first_id + seq) & id_mask);
    guest_.write(block + 8, std::as_bytes(std::span(text)));
    info(seq, text.size());
    descriptor(seq, state, begin, next_);
  }
  std::vector<std::string_view> read() {
    auto log = KernelLogReader::resolve(kernel_);
    EXPECT_TRUE(log);
    log->read(context_);
    std::vector<std::string_view> texts;
    for (const LogRecord& one : state_.kernel_log) texts.push_back(one.text);
    return texts;
  }
};

using Texts = std::vector<std::string_view>;

TEST_F(KernelLog, ReadsRecordsInOrder) {
  record(0, "first");
  record(1, "two\nlines");
  record(2, "");
  bounds(0, 2);
  EXPECT_EQ(read(), (Texts{"first", "two\nlines", ""}));
  EXPECT_TRUE(state_.problems.empty());
  const LogRecord& last = state_.kernel_log.at(2);
  EXPECT_EQ(last.sequence, 2U);
  EXPECT_EQ(last.time_ns, 1002U);
  EXPECT_EQ(last.level, 6U);
  EXPECT_EQ(last.facility, 3U);
}

TEST_F(KernelLog, RingThatWentRoundSeveralTimes) {
  const std::string text(50, 'x');
  for (std::uint64_t seq = 0; seq < 37; ++seq) record(seq, text.substr(0, 30 + seq % 20));
  bounds(33, 36);
  EXPECT_EQ(read().size(), 4U);
  EXPECT_EQ(state_.kernel_log.front().sequence, 33U);
  EXPECT_EQ(state_.kernel_log.back().text.size(), 30U + 36 % 20);
}

TEST_F(KernelLog, OnlyFinalisedRecords) {
  record(0, "done");
  record(1, "still written", 0);
  record(2, "may be continued", 1);
  record(3, "given back", 3);
  bounds(0, 3);
  EXPECT_EQ(read(), Texts{"done"});
  EXPECT_TRUE(state_.problems.empty());
}

TEST_F(KernelLog, RecordsWithoutBlocks) {
  info(0, 0);
  descriptor(0, 2, 3, 3);  // an empty line
  info(1, 20);
  descriptor(1, 2, 1, 1);  // its text found no room
  bounds(0, 1);
  EXPECT_EQ(read(), Texts{""});
}

TEST_F(KernelLog, OverwrittenTextIsNotShown) {
  record(0, "kept");
  record(1, "lost");
  bounds(0, 1);
  guest_.put(data_ + 16, (first_id + 9) & id_mask);  // the block of record 1 is another's now
  EXPECT_EQ(read(), Texts{"kept"});
  ASSERT_EQ(state_.problems.size(), 1U);
}

TEST_F(KernelLog, ForgedRingsAreRefused) {
  put("desc_ring.count_bits", 60);
  EXPECT_TRUE(read().empty());
  EXPECT_EQ(state_.problems.size(), 1U);
  put("desc_ring.count_bits", count_bits);
  put("text_data_ring.size_bits", 63);
  EXPECT_TRUE(read().empty());
  EXPECT_EQ(state_.problems.size(), 2U);
}

TEST_F(KernelLog, ForgedPointersAreProblems) {
  record(0, "x");
  bounds(0, 0);
  put("text_data_ring.data", std::uint64_t{0x1000});
  EXPECT_TRUE(read().empty());
  EXPECT_EQ(state_.problems.size(), 1U);
}

}  // namespace
}  // namespace vmsight::state_kernel_log_test
