// Memory that the front reads for a sandboxed vmsight: it is the same as the memory itself, and the desk believes nothing.
#include "attach/kept_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "attach/front.h"
#include "support/faulty_memory.h"
#include "support/synthetic_guest.h"

namespace vmsight::attach_kept_memory_test {
namespace {

using test::FaultPolicy;
using test::FaultyMemory;
using test::SyntheticGuest;

/// Halts while it is viewed, as a technique that stops the guest.
class HaltingMemory final : public MemoryDecorator {
 public:
  explicit HaltingMemory(GuestMemory& inner, bool refuses = false)
      : MemoryDecorator(inner), refuses_(refuses) {}
  bool is_live() const override { return !halted_; }
  MemoryCounters counters() const override {
    return {.bytes = 7, .calls = calls_, .pause_ns = halted_ ? 0U : 5000U};
  }
  Result<void> read_fresh(std::span<FreshRead> reads) override {
    ++calls_;
    return MemoryDecorator::read_fresh(reads);
  }

 private:
  Result<void> do_refresh() override {
    if (refuses_)
      return Error{.code = ErrorCode::permission, .message = "not now", .hint = "later"};
    halted_ = true;
    return {};
  }
  Result<void> do_end_view() override {
    halted_ = false;
    return {};
  }
  bool halted_ = false, refuses_;
  std::uint64_t calls_ = 0;
};

class KeptMemoryTest : public testing::Test {
 protected:
  /// By a desk in this process.
  std::unique_ptr<GuestMemory> keep(std::unique_ptr<GuestMemory> memory) {
    desk_ = std::make_unique<MemoryDesk>(std::move(memory));
    auto kept = open_kept_memory(
        [this](std::string_view question) { return desk_->answer(question); }, ram(),
        {.one_moment = true, .halts = true, .direct = true}, "halt-interface:test");
    EXPECT_TRUE(kept);
    return *std::move(kept);
  }
  RamMap ram() {
    const auto ranges = guest_.memory().ram().ranges();
    return RamMap::from({ranges.begin(), ranges.end()}).value();
  }

  SyntheticGuest guest_;
  std::unique_ptr<MemoryDesk> desk_;
};

TEST_F(KeptMemoryTest, IsTheSameMemory) {
  const GuestVirt object = guest_.allocate(page_size, page_size);
  guest_.put(object, std::uint64_t{0x1122334455667788});
  const GuestPhys at = *guest_.space().translate(guest_.memory(), object);
  const auto kept = keep(std::make_unique<HaltingMemory>(guest_.memory()));
  EXPECT_EQ(kept->technique(), "halt-interface:test");
  EXPECT_TRUE(kept->nature().is_read_halted());
  EXPECT_FALSE(kept->nature().direct);
  EXPECT_TRUE(kept->prepare()->suffice);
  std::array<std::byte, 2 * page_size> ours{}, theirs{};
  ASSERT_NE(kept->page(at), nullptr);
  EXPECT_EQ(std::memcmp(kept->page(at), guest_.memory().page(at), page_size), 0);
  const auto runs = kept->populated(), expected = guest_.memory().populated();
  ASSERT_EQ(runs->size(), expected->size());
  EXPECT_EQ(runs->front().start, expected->front().start);
  ASSERT_TRUE(kept->scan(runs->front().start, ours));
  ASSERT_TRUE(guest_.memory().scan(runs->front().start, theirs));
  EXPECT_EQ(ours, theirs);
  EXPECT_FALSE(kept->scan(kept->ram().end(), ours));
  EXPECT_TRUE(kept->health());
}

TEST_F(KeptMemoryTest, ViewsAreBegunAndEnded) {
  const auto kept = keep(std::make_unique<HaltingMemory>(guest_.memory()));
  EXPECT_TRUE(kept->is_live());
  ASSERT_TRUE(kept->refresh());
  EXPECT_FALSE(kept->is_live());
  kept->page(GuestPhys(0));
  ASSERT_TRUE(kept->end_view());
  EXPECT_TRUE(kept->is_live());
  const MemoryCounters counters = kept->counters();
  EXPECT_EQ(counters.pause_ns, 5000U);
  EXPECT_EQ(counters.bytes, page_size + 7);
  EXPECT_EQ(counters.calls, 1U);
}

TEST_F(KeptMemoryTest, ErrorsAreToldAsTheyAre) {
  const auto kept = keep(std::make_unique<HaltingMemory>(guest_.memory(), true));
  const auto refused = kept->refresh();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "not now");
  EXPECT_TRUE(kept->is_live());
}

TEST_F(KeptMemoryTest, ManyPlacesAtOnce) {
  const auto kept = keep(std::make_unique<HaltingMemory>(guest_.memory()));
  std::vector<std::byte> bytes(8 * 5000);
  std::vector<FreshRead> reads;
  for (std::size_t i = 0; i < 5000; ++i)
    reads.push_back({GuestPhys(i * 8), std::span(bytes).subspan(i * 8, 8)});
  reads[7].from = kept->ram().end();  // of which there is none
  ASSERT_TRUE(kept->read_fresh(reads));
  for (std::size_t i = 0; i < reads.size(); ++i) EXPECT_EQ(reads[i].ok, i != 7) << i;
}

/// Whoever took over a sandboxed vmsight asks for anything.
TEST_F(KeptMemoryTest, TheDeskBelievesNothing) {
  MemoryDesk desk(std::make_unique<HaltingMemory>(guest_.memory()));
  // As Question and Place are laid out: a task, how many places, and of a scan from where and how much.
  const auto question = [](std::uint8_t task, std::uint32_t places, std::uint64_t from,
                           std::uint64_t size, std::vector<std::uint64_t> words = {}) {
    std::string text(24, '\0');
    text[0] = static_cast<char>(task);
    std::memcpy(text.data() + 4, &places, 4);
    std::memcpy(text.data() + 8, &from, 8);
    std::memcpy(text.data() + 16, &size, 8);
    for (const std::uint64_t word : words) text.append(reinterpret_cast<const char*>(&word), 8);
    return text;
  };
  constexpr std::uint8_t look = 0, read = 3, scan = 4;
  EXPECT_TRUE(desk.answer(question(look, 0, 0, 0)));
  EXPECT_TRUE(desk.answer(question(read, 1, 0, 0, {0x1000, 8})));
  for (const std::string& wrong :
       {std::string(), std::string(23, '\1'), question(99, 0, 0, 0),
        question(read, 2, 0, 0, {0, 8}), question(read, 0xffffffff, 0, 0, {0, 8}),
        question(read, 1, 0, 0, {0xfff, 2}), question(read, 1, 0, 0, {0, ~std::uint64_t{0}}),
        question(scan, 0, 0, ~std::uint64_t{0}), question(scan, 0, ~std::uint64_t{0} - 10, 100)}) {
    EXPECT_FALSE(desk.answer(wrong));
  }
  // Beyond RAM nothing is readable, and nothing is read.
  const auto beyond = desk.answer(question(read, 1, 0, 0, {~std::uint64_t{0xfff}, 8}));
  ASSERT_TRUE(beyond);
  EXPECT_EQ((*beyond)[beyond->size() - 9], 0);
}

TEST_F(KeptMemoryTest, ByTheFront) {
  const auto open = [this]() -> Result<std::unique_ptr<GuestMemory>> {
    return std::unique_ptr<GuestMemory>(std::make_unique<HaltingMemory>(guest_.memory(), true));
  };
  FrontDuties duties;
  duties.memories = {open};
  const auto front = Front::start(duties);
  ASSERT_TRUE(front);
  const auto kept = open_kept_memory(
      [&](std::string_view question) { return (*front)->ask(Front::Task::memory, "0", question); },
      ram(), {}, "test");
  ASSERT_TRUE(kept);
  EXPECT_NE((*kept)->page(GuestPhys(0)), nullptr);
  const auto refused = (*kept)->refresh();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().hint, "later");
  for (const char* name : {"1", "", "x", "-1", "00000000000000000000001"})
    EXPECT_FALSE((*front)->ask(Front::Task::memory, name, "")) << name;
}

TEST_F(KeptMemoryTest, WhatTheFrontCannotOpenIsToldAtOnce) {
  FrontDuties duties;
  duties.memories = {[]() -> Result<std::unique_ptr<GuestMemory>> {
    return Error{.code = ErrorCode::unsupported, .message = "no such thing", .hint = "another"};
  }};
  const auto front = Front::start(duties);
  ASSERT_FALSE(front);
  EXPECT_EQ(front.error().code, ErrorCode::unsupported);
  EXPECT_EQ(front.error().hint, "another");
}

}  // namespace
}  // namespace vmsight::attach_kept_memory_test
