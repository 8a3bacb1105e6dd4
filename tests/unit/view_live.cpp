// live-map and live-read against a child process that has RAM as QEMU has it.
#include <gtest/gtest.h>

#include <array>
#include <cctype>

#include "support/child_vm.h"
#include "view/process_reads.h"
#include "vmsight/view.h"

namespace vmsight::view_live_test {
namespace {

using test::ChildVm;

constexpr std::uint64_t gib = 1ULL << 30;
constexpr std::uint64_t low = 16 << 20, high = 8 << 20;  // sizes below and above the hole

struct Case {
  std::string_view technique;
  Backing backing;
};

std::string name(const ::testing::TestParamInfo<Case>& info) {
  std::string text(info.param.technique);
  text += std::string("_") + std::string(to_string(info.param.backing));
  for (char& c : text) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return text;
}

class LiveView : public ::testing::TestWithParam<Case> {
 protected:
  LiveView() : vm_(GetParam().backing, {{GuestPhys(0), low}, {GuestPhys(4 * gib), high}}) {}
  void SetUp() override {
    vm_.put(GuestPhys(0x1000), std::uint64_t{1});
    vm_.put(GuestPhys(0x5ff8), std::uint64_t{2});
    vm_.put(GuestPhys(4 * gib + 0x3000), std::uint64_t{3});
    auto memory = open_view(vm_, GetParam().technique);
    ASSERT_TRUE(memory) << memory.error().message;
    memory_ = *std::move(memory);
  }
  std::optional<std::uint64_t> value(std::uint64_t address) {
    std::uint64_t value = 0;
    if (!read_phys(*memory_, GuestPhys(address), std::as_writable_bytes(std::span(&value, 1)))) {
      return std::nullopt;
    }
    return value;
  }

  ChildVm vm_;
  std::unique_ptr<GuestMemory> memory_;
};

TEST_P(LiveView, ReadsWhatTheGuestWrote) {
  EXPECT_EQ(memory_->technique(), GetParam().technique);
  EXPECT_TRUE(memory_->is_live());
  EXPECT_EQ(value(0x1000), 1U);
  EXPECT_EQ(value(0x5ff8), 2U);
  EXPECT_EQ(value(4 * gib + 0x3000), 3U);
  EXPECT_EQ(value(low), std::nullopt);
  EXPECT_EQ(value(4 * gib + high - 8), 0U);
  EXPECT_EQ(memory_->counters().pages, 4U);
  EXPECT_EQ(memory_->counters().bytes, 4 * page_size);
}

TEST_P(LiveView, NeitherHaltsNorAsksTheGuest) {
  const ViewNature nature = memory_->nature();
  EXPECT_TRUE(nature.passive);
  EXPECT_FALSE(nature.one_moment || nature.halts || nature.copies);
  EXPECT_EQ(nature.direct, GetParam().technique == "live-map");
}

TEST_P(LiveView, ANewViewSeesNewContents) {
  for (std::uint64_t i = 1; i < 10; ++i) {
    vm_.put(GuestPhys(0x1000), i);
    ASSERT_TRUE(memory_->refresh());
    EXPECT_EQ(value(0x1000), i);
    EXPECT_EQ(memory_->counters().pages, 1U);
  }
}

TEST_P(LiveView, FreshReadsSeeTheGuestNow) {
  EXPECT_EQ(value(0x1000), 1U);
  vm_.put(GuestPhys(0x1000), std::uint64_t{11});
  std::uint64_t first = 0, second = 0, outside = 0;
  std::vector<FreshRead> reads{
      {GuestPhys(0x1000), std::as_writable_bytes(std::span(&first, 1))},
      {GuestPhys(low), std::as_writable_bytes(std::span(&outside, 1))},
      {GuestPhys(4 * gib + 0x3000), std::as_writable_bytes(std::span(&second, 1))}};
  ASSERT_TRUE(memory_->read_fresh(reads));
  EXPECT_EQ(first, 11U);
  EXPECT_EQ(second, 3U);
  EXPECT_TRUE(reads[0].ok && !reads[1].ok && reads[2].ok);
}

TEST_P(LiveView, ForgottenPagesAreReadAnew) {
  EXPECT_EQ(value(0x1000), 1U);
  vm_.put(GuestPhys(0x1000), std::uint64_t{12});
  const GuestPhys page(0x1000);
  memory_->forget({&page, 1});
  EXPECT_EQ(value(0x1000), 12U);
}

TEST_P(LiveView, ScanningAllocatesNoHoles) {
  const bool file = GetParam().backing != Backing::anonymous;
  const std::uint64_t before = file ? vm_.file_blocks() : 0;
  std::vector<std::byte> all(low, std::byte{0xee});
  ASSERT_TRUE(memory_->scan(GuestPhys(0), all));
  EXPECT_EQ(all[0x1000], std::byte{1});
  EXPECT_EQ(all[0x5ff8], std::byte{2});
  EXPECT_EQ(all[0x9000], std::byte{0});
  EXPECT_EQ(all.back(), std::byte{0});
  if (file) {
    EXPECT_EQ(vm_.file_blocks(), before);
  }

  all.resize(low + 1);
  const auto beyond = memory_->scan(GuestPhys(0), all);
  ASSERT_FALSE(beyond);
  EXPECT_EQ(beyond.error().code, ErrorCode::fault);
  EXPECT_EQ(beyond.error().address, low);
}

TEST_P(LiveView, PopulatedRunsAreThoseTheGuestWrote) {
  const auto runs = *memory_->populated();
  ASSERT_GE(runs.size(), 3U);
  const auto holds = [&](std::uint64_t address) {
    for (const PhysRange& run : runs) {
      if (GuestPhys(address) >= run.start && GuestPhys(address) - run.start < run.size) return true;
    }
    return false;
  };
  EXPECT_TRUE(holds(0x1000));
  EXPECT_TRUE(holds(0x5ff8));
  EXPECT_TRUE(holds(4 * gib + 0x3000));
  EXPECT_FALSE(holds(0x9000));
  EXPECT_FALSE(holds(4 * gib + 0x5000));
}

TEST_P(LiveView, ADeadVmIsGone) {
  EXPECT_TRUE(memory_->health());
  vm_.end();
  ASSERT_FALSE(memory_->health());
  EXPECT_EQ(memory_->health().error().code, ErrorCode::vm_gone);
  value(0x2000);  // whatever it gives, it returns
  ASSERT_FALSE(memory_->health());
  EXPECT_EQ(memory_->health().error().code, ErrorCode::vm_gone);
}

INSTANTIATE_TEST_SUITE_P(All, LiveView,
                         ::testing::Values(Case{"live-map", Backing::shared_file},
                                           Case{"live-read", Backing::shared_file},
                                           Case{"live-read", Backing::anonymous},
                                           Case{"live-read", Backing::private_file}),
                         name);

TEST(LiveRead, ManyPagesInOneCall) {
  ChildVm vm(Backing::anonymous, {{GuestPhys(0), 32 << 20}});
  for (std::uint64_t i = 0; i < 4096; ++i) vm.put(GuestPhys(i * page_size), i);
  auto memory = *open_live_read(vm);
  const auto touch = [&](std::uint64_t step) {
    for (std::uint64_t i = 0; i < 4096; i += step) {
      std::uint64_t value = ~0ULL;
      ASSERT_TRUE(read_phys(*memory, GuestPhys(i * page_size),
                            std::as_writable_bytes(std::span(&value, 1))));
      ASSERT_EQ(value, i);
    }
  };
  touch(2);
  EXPECT_EQ(memory->counters().calls, 2048U);
  ASSERT_TRUE(memory->refresh());
  touch(2);
  EXPECT_EQ(memory->counters().calls, 2U) << "1024 iovecs a call";
  touch(1);
  ASSERT_TRUE(memory->refresh());
  touch(1);
  EXPECT_EQ(memory->counters().calls, 1U) << "neighbours are one iovec";
}

TEST(LiveRead, APageThatIsGoneFailsAloneInABatch) {
  ChildVm vm(Backing::shared_file, {{GuestPhys(0), 1 << 20}});
  for (std::uint64_t i = 0; i < 256; ++i) vm.put(GuestPhys(i * page_size), i);
  auto source = *ProcessReads::open(vm);
  // Truncation takes the upper pages away: reading them is EFAULT, in the middle of a run.
  ASSERT_EQ(::ftruncate(vm.file(), 100 * page_size), 0);
  std::vector<std::array<std::byte, page_size>> pages(256);
  std::vector<FreshRead> reads;
  for (const std::uint64_t i : {98, 99, 100, 101, 5, 200, 6}) {
    reads.push_back({GuestPhys(i * page_size), pages[i]});
  }
  ASSERT_TRUE(source->read(reads));
  std::vector<bool> ok;
  for (const FreshRead& read : reads) ok.push_back(read.ok);
  EXPECT_EQ(ok, (std::vector{true, true, false, false, true, false, true}));
  EXPECT_EQ(pages[99][0], std::byte{99});
  EXPECT_EQ(pages[6][0], std::byte{6});
}

TEST(LiveMap, SaysWhyItCannotMap) {
  ChildVm vm(Backing::anonymous, {{GuestPhys(0), 1 << 20}});
  const auto memory = open_live_map(vm);
  ASSERT_FALSE(memory);
  EXPECT_EQ(memory.error().code, ErrorCode::unsupported);
  EXPECT_NE(memory.error().message.find("anonymous"), std::string::npos);
  EXPECT_NE(memory.error().hint.find("memory-backend-memfd"), std::string::npos);
}

TEST(OpenView, AutoPrefersMapping) {
  ChildVm shared(Backing::shared_file, {{GuestPhys(0), 1 << 20}});
  EXPECT_EQ((*open_view(shared, "auto"))->technique(), "live-map");
  ChildVm anonymous(Backing::anonymous, {{GuestPhys(0), 1 << 20}});
  EXPECT_EQ((*open_view(anonymous, "auto"))->technique(), "live-read");
  const auto unknown = open_view(shared, "telepathy");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::usage);
  EXPECT_NE(unknown.error().hint.find("live-read"), std::string::npos);
}

TEST(OpenView, SaysWhatWasPassedOver) {
  ChildVm anonymous(Backing::anonymous, {{GuestPhys(0), 1 << 20}});
  std::vector<TechniqueStatus> passed_over;
  ASSERT_TRUE(open_view(anonymous, "auto", {}, &passed_over));
  ASSERT_EQ(passed_over.size(), 1u);
  EXPECT_EQ(passed_over[0].name, "live-map");
  EXPECT_NE(passed_over[0].reason.find("anonymous"), std::string::npos);
}

TEST(OpenView, AWishRulesOutWhatDoesNotGiveIt) {
  ChildVm vm(Backing::shared_file, {{GuestPhys(0), 1 << 20}});
  std::vector<TechniqueStatus> passed_over;
  static_cast<void>(open_view(vm, "auto", {.consistent = true}, &passed_over));
  ASSERT_FALSE(passed_over.empty());
  EXPECT_EQ(passed_over[0].name, "live-map");
  EXPECT_EQ(passed_over[0].reason, "a view does not show one moment");
  // A technique that is named is taken whatever the wish: the user knows.
  EXPECT_TRUE(open_view(vm, "live-read", {.consistent = true}));
}

TEST(OpenView, TouchesNoPage) {
  ChildVm vm(Backing::shared_file, {{GuestPhys(0), 1 << 20}});
  for (const std::string_view technique : {"live-map", "live-read"}) {
    auto memory = *open_view(vm, technique);
    EXPECT_TRUE(memory->populated()->empty());
    EXPECT_EQ(vm.file_blocks(), 0U) << technique;
  }
}

TEST(OpenView, ADeadVmGivesVmGone) {
  ChildVm vm(Backing::shared_file, {{GuestPhys(0), 1 << 20}});
  vm.end();
  for (const std::string_view technique : {"auto", "live-map", "live-read"}) {
    const auto memory = open_view(vm, technique);
    ASSERT_FALSE(memory) << technique;
    EXPECT_EQ(memory.error().code, ErrorCode::vm_gone) << technique;
  }
}

TEST(TechniqueStatus, TellsWhatWorksAndWhyNot) {
  ChildVm vm(Backing::anonymous, {{GuestPhys(0), 1 << 20}});
  bool reads = false;
  for (const TechniqueStatus& status : technique_status(vm)) {
    if (status.name == "live-read") reads = status.usable;
    EXPECT_EQ(status.usable, status.reason.empty()) << status.name;
  }
  EXPECT_TRUE(reads);
}

TEST(TechniqueStatus, SaysOfATechniqueWhatItsMemorySays) {
  for (const Backing backing : {Backing::anonymous, Backing::shared_file}) {
    ChildVm vm(backing, {{GuestPhys(0), 1 << 20}});
    for (const TechniqueStatus& status : technique_status(vm)) {
      if (!status.usable) continue;
      const auto memory = open_view(vm, status.name);
      if (!memory) continue;  // it can be there once at a time
      const ViewNature nature = (*memory)->nature();
      EXPECT_EQ(nature.one_moment, status.abilities.consistent) << status.name;
      EXPECT_EQ(nature.halts, status.abilities.halts) << status.name;
      EXPECT_EQ(nature.copies, status.abilities.copies) << status.name;
      EXPECT_TRUE(status.abilities.pauses || !status.abilities.halts) << status.name;
    }
  }
}

TEST(ChooseTechnique, TellsWhatAutoWouldTake) {
  ChildVm vm(Backing::anonymous, {{GuestPhys(0), 1 << 20}});
  const auto chosen = choose_technique(vm, {});
  ASSERT_TRUE(chosen) << chosen.error().message;
  EXPECT_EQ(chosen->name, (*open_view(vm, "auto"))->technique());
  EXPECT_TRUE(chosen->usable && !chosen->cost.empty() && !chosen->abilities.pauses);
  const auto none = choose_technique(vm, {.consistent = true, .no_pause = true});
  EXPECT_EQ(none.error().code, ErrorCode::unsupported);
}

}  // namespace
}  // namespace vmsight::view_live_test
