#include "kernel/x86_64/orc.h"

#include <gtest/gtest.h>
#include <random>

#include "support/orc_guest.h"

namespace vmsight::kernel_orc_test {
namespace {

using test::OrcFormat;
using test::OrcGuest;
using Base = OrcRule::Base;
using Entry = OrcGuest::Entry;

OrcRule call(Base base, std::int16_t offset, Base bp = Base::undefined,
             std::int16_t bp_offset = 0) {
  return {OrcRule::Kind::call, base, bp, offset, bp_offset, false};
}
OrcRule regs(OrcRule::Kind kind, std::int16_t offset) {
  return {kind, Base::sp, Base::undefined, offset, 0, true};
}
OrcRule end_of_stack() { return {OrcRule::Kind::end_of_stack, Base::undefined}; }

class OrcTest : public ::testing::TestWithParam<OrcFormat>, protected OrcGuest {
 protected:
  OrcTest() : OrcGuest(GetParam()) {}

  std::unique_ptr<OrcTables> make_tables(std::vector<Entry> rows) {
    auto made = OrcGuest::make_tables(std::move(rows));
    EXPECT_TRUE(made) << made.error().message;
    return made ? *std::move(made) : nullptr;
  }
  std::vector<std::uint64_t> codes(const KernelStack& result) const {
    std::vector<std::uint64_t> list;
    for (const Frame& frame : result.frames) list.push_back(frame.pc - guest.image(0));
    return list;
  }
};

void append(std::vector<std::uint64_t>& words, const std::vector<std::uint64_t>& more) {
  words.insert(words.end(), more.begin(), more.end());
}

TEST_P(OrcTest, FollowsASystemCallToUserMode) {
  const auto orc = make_tables({{0, call(Base::sp, 8)},
                                {0x100, call(Base::sp, 24, Base::previous_sp, -16)},
                                {0x200, call(Base::bp, 16, Base::previous_sp, -16)},
                                {0x300, regs(OrcRule::Kind::regs, 0)},
                                {0x400, end_of_stack()}});
  std::vector<std::uint64_t> words = inactive_frame(0x110);
  // The frame of 0x110: one word, the saved bp, the return address.
  append(words, {7, 0, guest.image(0x210).raw()});
  const std::size_t saved_bp = words.size() - 2;
  // The frame of 0x210: two words, then where bp points: the saved bp, the return address.
  append(words, {1, 2, 99, guest.image(0x310).raw()});
  const std::size_t bp_target = words.size() - 2;
  append(words, pt_regs(0x401000, 0x33, 0x7ffc0000, 230));
  words[saved_bp] = (stack + 16384 - 8 * (words.size() - bp_target)).raw();
  put_stack(words);

  auto result = orc->unwind(reader, task);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_TRUE(result->complete) << result->stopped;
  EXPECT_EQ(codes(*result), (std::vector<std::uint64_t>{0x110, 0x210, 0x310}));
  EXPECT_EQ(result->frames[0].sp, sp + 48);
  EXPECT_TRUE(result->frames[2].reliable);
  EXPECT_EQ(result->system_call, 230U);
  EXPECT_EQ(result->user_ip, 0x401000U);
  EXPECT_EQ(result->user_sp, 0x7ffc0000U);
}

TEST_P(OrcTest, AKernelThreadEndsWhereItBegan) {
  const auto orc = make_tables({{0x100, call(Base::sp, 8)}, {0xf000, end_of_stack()}});
  std::vector<std::uint64_t> words = inactive_frame(0x110);
  append(words, {guest.image(0xf01f).raw(), 0});
  put_stack(words);
  auto result = orc->unwind(reader, task);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->complete);
  EXPECT_EQ(codes(*result), (std::vector<std::uint64_t>{0x110, 0xf01f}));
  EXPECT_FALSE(result->system_call);
}

TEST_P(OrcTest, ATaskThatNeverRanIsAtItsFirstInstruction) {
  // The rule before ret_from_fork must not be used: nothing was called there.
  const auto orc = make_tables({{0x100, call(Base::sp, 512)}, {0xf000, end_of_stack()}});
  put_stack(inactive_frame(0xf000));
  auto result = orc->unwind(reader, task);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->complete) << result->stopped;
}

TEST_P(OrcTest, GoesThroughAnInterrupt) {
  // 0x100 was preempted: it lies in an interrupt's frame, and at 0x200 the instruction itself
  // decides (one byte earlier another rule holds).
  const auto orc = make_tables({{0x100, regs(OrcRule::Kind::regs, 0)},
                                {0x1f0, call(Base::sp, 4096)},
                                {0x200, call(Base::sp, 16)},
                                {0xf000, end_of_stack()}});
  std::vector<std::uint64_t> words = inactive_frame(0x110);
  std::vector<std::uint64_t> interrupted = pt_regs(guest.image(0x200).raw(), 0x10, 0, ~0ULL, 5);
  std::vector<std::uint64_t> after = {1, guest.image(0xf001).raw()};
  interrupted[19] = (stack + 16384 - 16).raw();
  append(words, interrupted);
  append(words, after);
  put_stack(words);
  auto result = orc->unwind(reader, task);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->complete) << result->stopped;
  EXPECT_EQ(codes(*result), (std::vector<std::uint64_t>{0x110, 0x200, 0xf001}));
}

TEST_P(OrcTest, ReadsRulesOfModules) {
  const GuestVirt module = guest.allocate(256), head = guest.image(0x200000);
  kernel.add_symbol("modules", head);
  const GuestVirt node = module + 8;
  guest.link_list(head, std::array{node});
  const GuestVirt places = guest.image(0x210000), entries = guest.image(0x211000);
  put_table(places, entries, {{0x300000, call(Base::sp, 16)}});
  guest.put(module + 32, std::uint32_t{1});
  guest.put_pointer(module + 40, places);
  guest.put_pointer(module + 48, entries);
  guest.put_pointer(module + 64, guest.image(0x300000));
  guest.put(module + 72, std::uint32_t{0x1000});
  const auto orc = make_tables({{0xf000, end_of_stack()}});
  EXPECT_TRUE(orc->is_text(guest.image(0x300fff)));
  EXPECT_FALSE(orc->is_text(guest.image(0x301000)));
  std::vector<std::uint64_t> words = inactive_frame(0x300010);
  append(words, {1, guest.image(0xf001).raw()});
  put_stack(words);
  auto result = orc->unwind(reader, task);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->complete) << result->stopped;
  EXPECT_EQ(codes(*result), (std::vector<std::uint64_t>{0x300010, 0xf001}));
}

TEST_P(OrcTest, CodeWithoutRulesIsFollowedByFramePointersAndSaysSo) {
  const GuestVirt jit(0xffffffffc0000000);
  guest.map(jit, guest.allocate_phys(4096, 4096));
  const auto orc = make_tables({{0x100, call(Base::sp, 8)}, {0xf000, end_of_stack()}});
  std::vector<std::uint64_t> words = inactive_frame(0x110);
  append(words, {(jit + 0x40).raw(), 0, 0, guest.image(0xf001).raw()});
  words[5] = (stack + 16384 - 16).raw();
  put_stack(words);
  auto result = orc->unwind(reader, task);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->complete) << result->stopped;
  ASSERT_EQ(result->frames.size(), 3U);
  EXPECT_TRUE(result->frames[1].reliable);
  EXPECT_FALSE(result->frames[2].reliable);
}

TEST_P(OrcTest, SaysWhyAStackEnds) {
  const auto orc = make_tables({{0x100, call(Base::sp, 8)},
                                {0x200, call(Base::sp, -8)},
                                {0x300, call(Base::sp, 32000)},
                                {0x400, {OrcRule::Kind::undefined, Base::undefined}},
                                {0x500, call(Base::sp_indirect, 8)}});
  const auto stopped = [&](std::vector<std::uint64_t> words) {
    put_stack(words);
    auto result = orc->unwind(reader, task);
    EXPECT_TRUE(result);
    EXPECT_FALSE(result->complete);
    return std::string(result->stopped);
  };
  const auto then = [&](std::uint64_t first, std::uint64_t next) {
    std::vector<std::uint64_t> words = inactive_frame(first);
    append(words, {next, 0, 0, 0});
    return words;
  };
  EXPECT_EQ(stopped(then(0x110, 0xdeadbeef)), "a return address that is not code");
  EXPECT_EQ(stopped(then(0x210, 0)), "the stack pointer does not grow");
  EXPECT_EQ(stopped(then(0x310, 0)), "the next frame is outside the stack");
  EXPECT_EQ(stopped(then(0x410, 0)), "code without an unwind rule");
  EXPECT_EQ(stopped(then(0x510, 0)), "the frame's address is not known");
  std::vector<std::uint64_t> endless = inactive_frame(0x110);
  endless.resize(1500, guest.image(0x110).raw());
  EXPECT_EQ(stopped(endless), "too many frames");
}

TEST_P(OrcTest, TasksWithoutAStackToRead) {
  const auto orc = make_tables({{0x100, call(Base::sp, 8)}});
  put_stack(inactive_frame(0x110));
  guest.put(task + 16, std::uint32_t{1});
  EXPECT_EQ(orc->unwind(reader, task)->stopped, "the task runs on a CPU");
  guest.put(task + 16, std::uint32_t{0});
  guest.put_pointer(task + 32, stack - 8);
  EXPECT_EQ(orc->unwind(reader, task)->stopped,
            "the saved stack pointer is outside the task's stack");
  guest.put_pointer(task + 8, GuestVirt(0));
  EXPECT_EQ(orc->unwind(reader, task)->stopped, "the task has no stack any more");
  auto result = orc->unwind(reader, GuestVirt(0x1000));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::fault);
}

TEST_P(OrcTest, AKernelWithoutTablesIsUnsupported) {
  auto made = OrcTables::create(kernel, reader);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::unsupported);
}

TEST_P(OrcTest, UnknownNumbersOfRegistersAreUnsupported) {
  static_cast<void>(make_tables({{0, call(Base::sp, 8)}}));
  const GuestVirt first_function = guest.image(tables + 0x10000 + 6 + 4);
  guest.put(first_function, std::uint8_t{14});
  auto made = OrcTables::create(kernel, reader);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::unsupported);
}

TEST_P(OrcTest, RandomStacksAndTablesAreSurvived) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<Entry> rows;
    for (std::uint64_t code = 0; code < 0xff00; code += 1 + random() % 0x800) {
      OrcRule rule{static_cast<OrcRule::Kind>(random() % 5), static_cast<Base>(random() % 11),
                   static_cast<Base>(random() % 11),         static_cast<std::int16_t>(random()),
                   static_cast<std::int16_t>(random()),      random() % 2 == 0};
      if (random() % 2 == 0) rule = call(Base::sp, static_cast<std::int16_t>(8 * (random() % 8)));
      rows.push_back({code, rule});
    }
    const auto orc = make_tables(rows);
    std::vector<std::uint64_t> words = inactive_frame(random() % 0x10000);
    while (words.size() < 600) {
      words.push_back(random() % 3 != 0 ? guest.image(random() % 0x10000).raw()
                                        : (stack + random() % 16384).raw());
    }
    put_stack(words);
    auto result = orc->unwind(reader, task);
    ASSERT_TRUE(result);
    EXPECT_TRUE(result->complete || !result->stopped.empty());
    EXPECT_LE(result->frames.size(), 256U);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, OrcTest,
                         ::testing::Values(OrcFormat::with_end_bit, OrcFormat::with_signal_bit,
                                           OrcFormat::renumbered),
                         [](const auto& format) {
                           return format.param == OrcFormat::with_end_bit      ? "EndBit"
                                  : format.param == OrcFormat::with_signal_bit ? "SignalBit"
                                                                               : "Renumbered";
                         });

}  // namespace
}  // namespace vmsight::kernel_orc_test
