// find_kernel() on kernels planted into bare RAM.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "kernel/btf.h"
#include "kernel/cache.h"
#include "kernel/clock_watch.h"
#include "support/faulty_memory.h"
#include "support/synthetic_kernel.h"
#include "vmsight/kernel.h"

namespace vmsight::kernel_find_test {
namespace {

namespace fs = std::filesystem;
using test::ByteMemory;
using test::KernelSpec;
using test::plant_kernel;
using test::PlantedKernel;
using test::TableOrder;
using Encoding = KallsymsLayout::Encoding;

constexpr std::uint64_t mib = 1U << 20;

class FindKernelTest : public testing::Test {
 protected:
  ByteMemory memory{{{GuestPhys(0), 80 * mib}}};
  FindKernelOptions options;

  Result<std::unique_ptr<Kernel>> find() { return find_kernel(memory, options); }
  std::unique_ptr<Kernel> found() {
    auto kernel = find();
    EXPECT_TRUE(kernel) << (kernel ? "" : kernel.error().message);
    return kernel ? *std::move(kernel) : nullptr;
  }
  void expect_error(ErrorCode code, std::string_view words) {
    const auto kernel = find();
    ASSERT_FALSE(kernel);
    EXPECT_EQ(kernel.error().code, code) << kernel.error().message;
    EXPECT_NE(kernel.error().message.find(words), std::string::npos) << kernel.error().message;
  }
};

struct Shape {
  const char* name;
  KernelSpec spec;
};
class FindShapesTest : public FindKernelTest, public testing::WithParamInterface<Shape> {};
INSTANTIATE_TEST_SUITE_P(
    Shapes, FindShapesTest,
    testing::Values(Shape{"old_tables", {.order = TableOrder::old}},
                    Shape{"old_tables_with_seqs", {.order = TableOrder::old_with_seqs}},
                    Shape{"new_tables", {.text_va = GuestVirt(0xffffffffb2200000)}},
                    Shape{"offsets_from_base", {.encoding = Encoding::from_base}},
                    Shape{"offsets_from_slots", {.encoding = Encoding::from_slot}},
                    Shape{"five_levels",
                          {.page_offset = GuestVirt(0xff11000000000000), .five_level = true}},
                    Shape{"text_of_small_pages", {.small_pages = true}},
                    Shape{"banner_elsewhere", {.banner_offset = 0x8000}},
                    Shape{"banner_elsewhere_slots",
                          {.encoding = Encoding::from_slot, .banner_offset = 0x8000}}),
    [](const auto& shape) { return std::string(shape.param.name); });

TEST_P(FindShapesTest, FindsItsPlaceSymbolsAndTypes) {
  const KernelSpec& spec = GetParam().spec;
  const PlantedKernel planted = plant_kernel(memory, spec);
  const auto kernel = found();
  ASSERT_TRUE(kernel);
  EXPECT_EQ(kernel->banner(), spec.banner);
  EXPECT_EQ(kernel->build_id(), "abababababababababababababababababababab");
  EXPECT_EQ(kernel->space().root(), planted.page_table);
  EXPECT_EQ(kernel->space().levels(), spec.five_level ? 5u : 4u);
  EXPECT_EQ(kernel->space().image().start, spec.text_va);
  EXPECT_EQ(kernel->space().image().end, spec.text_va + planted.size);
  EXPECT_EQ(kernel->page_offset(), spec.page_offset);
  EXPECT_EQ(kernel->vmemmap(), spec.vmemmap);
  const std::vector<std::uint64_t> offsets(kernel->per_cpu_offsets().begin(),
                                           kernel->per_cpu_offsets().end());
  EXPECT_EQ(offsets, (std::vector{mib, 2 * mib}));
  const auto task = kernel->symbol("init_task");
  ASSERT_TRUE(task);
  EXPECT_EQ(kernel->space().translate(memory, *task), planted.init_task);
  EXPECT_EQ(kernel->symbol("no_such_symbol"), std::nullopt);
  EXPECT_EQ(kernel->member("task_struct", "comm")->offset, test::synthetic_comm_offset);
  EXPECT_EQ(kernel->member("task_struct", "pid"), std::nullopt);
  EXPECT_EQ(kernel->type_size("task_struct"), 128U);
  EXPECT_EQ(kernel->enumerator("ANSWER"), 42);
}

TEST_P(FindShapesTest, SymbolsAreSortedAndLocated) {
  const KernelSpec& spec = GetParam().spec;
  plant_kernel(memory, spec);
  const auto kernel = found();
  ASSERT_TRUE(kernel);
  const auto symbols = kernel->symbols();
  ASSERT_TRUE(symbols);
  EXPECT_GT(symbols->size(), 600U);
  EXPECT_TRUE(std::is_sorted(symbols->begin(), symbols->end(),
                             [](const auto& a, const auto& b) { return a.address < b.address; }));
  const auto location = kernel->locate(spec.text_va + 0x1000 + 16 * 7 + 5);
  ASSERT_TRUE(location);
  EXPECT_EQ(location->name, "filler_0007");
  EXPECT_EQ(location->offset, 5U);
  EXPECT_FALSE(kernel->locate(spec.text_va - 1));
  EXPECT_FALSE(kernel->locate(spec.text_va + (6 * mib)));
  EXPECT_FALSE(kernel->locate(GuestVirt(0x1000)));
}

TEST_F(FindKernelTest, BrokenPagesEndInAnErrorOrAnAnswer) {
  for (const TableOrder order : {TableOrder::old, TableOrder::old_with_seqs, TableOrder::fresh}) {
    plant_kernel(memory, {.order = order});
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      test::FaultyMemory faulty(memory, {.seed = seed, .missing = 3000, .corrupt = 6000});
      const auto kernel = find_kernel(faulty, options);
      if (!kernel) continue;
      static_cast<void>((*kernel)->symbols());
      static_cast<void>((*kernel)->member("task_struct", "comm"));
    }
  }
}

TEST_F(FindKernelTest, EmptyMemoryIsNotAKernel) { expect_error(ErrorCode::not_found, "no Linux"); }

TEST_F(FindKernelTest, AVersionTextAloneIsNamed) {
  const std::string_view text = "Linux version 4.4.0 (packed)\n";
  memory.write(GuestPhys(5 * mib + 77), std::as_bytes(std::span(text)));
  expect_error(ErrorCode::not_found, "Linux version 4.4.0 (packed)");
}

TEST_F(FindKernelTest, ABannerWithoutSymbolsIsNamed) {
  const std::string_view text = "Linux version 4.4.0 (no kallsyms)\n";
  memory.write(GuestPhys(6 * mib), std::as_bytes(std::span(text)));
  expect_error(ErrorCode::not_found, "Linux version 4.4.0 (no kallsyms)");
  expect_error(ErrorCode::not_found, "kallsyms token table");
}

TEST_F(FindKernelTest, AKernelWithoutTypesIsUnsupported) {
  plant_kernel(memory, {.btf = false});
  expect_error(ErrorCode::unsupported, "found \"Linux version 6.1.0-test");
  expect_error(ErrorCode::unsupported, "no BTF");
}

TEST_F(FindKernelTest, AKernelThatIsStartingIsNotFoundYet) {
  plant_kernel(memory, {.started = false});
  expect_error(ErrorCode::not_found, "its page table does not map it");
}

TEST_F(FindKernelTest, WithoutPerCpuAreasItIsStarting) {
  plant_kernel(memory, {.cpus = 0});
  expect_error(ErrorCode::not_found, "no per-CPU areas yet");
}

TEST_F(FindKernelTest, AVmThatIsGoneSaysSo) {
  plant_kernel(memory, {});
  memory.set_health(Error{.code = ErrorCode::vm_gone, .message = "it ended"});
  expect_error(ErrorCode::vm_gone, "it ended");
}

TEST_F(FindKernelTest, AKernelThatWasOverwrittenIsGone) {
  plant_kernel(memory, {});
  memory.set_live(true);
  const auto kernel = found();
  ASSERT_TRUE(kernel);
  for (int view = 0; view < 3; ++view) EXPECT_TRUE(kernel->check_running());
  plant_kernel(memory, {.page_offset = GuestVirt(0xffff9d0000000000)});  // booted at the same place
  const auto gone = kernel->check_running();
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, ErrorCode::vm_gone);
}

TEST(ClockWatchTest, TellsAKernelThatStandsStill) {
  constexpr std::uint64_t second = 1'000'000'000;
  ClockWatch watch;
  EXPECT_FALSE(watch.falls_behind(1000, 0));
  EXPECT_FALSE(watch.falls_behind(1000, second));      // idle
  EXPECT_FALSE(watch.falls_behind(1300, 2 * second));  // caught up
  EXPECT_FALSE(watch.falls_behind(1301, 4 * second));  // less than it should, for 2 s
  EXPECT_FALSE(watch.falls_behind(1301, 6 * second));
  EXPECT_TRUE(watch.falls_behind(1301, 8 * second));     // 4 s without a tick
  EXPECT_FALSE(watch.falls_behind(1301, 9 * second));    // starts anew
  EXPECT_TRUE(watch.falls_behind(1310, 69 * second));    // 9 ticks in a minute: it stopped
  EXPECT_FALSE(watch.falls_behind(7310, 129 * second));  // 100 a second
}

/// What three warm reboots leave: the same build at different places.
class StaleKernelsTest : public FindKernelTest {
 protected:
  StaleKernelsTest() {
    first = plant_kernel(memory, {.text = GuestPhys(16 * mib)});
    second = plant_kernel(memory, {.text = GuestPhys(32 * mib),
                                   .text_va = GuestVirt(0xffffffffa0000000),
                                   .page_offset = GuestVirt(0xffff9d0000000000)});
    third = plant_kernel(memory, {.text = GuestPhys(64 * mib),
                                  .text_va = GuestVirt(0xffffffff90000000),
                                  .banner = "Linux version 6.12.0-test #1",
                                  .build_id = std::byte{0xcd}});
  }
  void expect_image_at(std::uint64_t text) {
    const auto kernel = found();
    ASSERT_TRUE(kernel);
    EXPECT_EQ(kernel->space().image().start.raw() - kernel->space().image().delta, text);
  }
  /// The guest's clock: changes with each reading.
  test::FaultyMemory ticking(GuestPhys clock) {
    return test::FaultyMemory(memory, {.change = [this, clock](GuestPhys page, auto bytes) {
                                if (page == clock.page())
                                  bytes[clock.page_offset()] = static_cast<std::byte>(++ticks);
                              }});
  }
  PlantedKernel first, second, third;
  std::uint64_t ticks = 0;
};

TEST_F(StaleKernelsTest, AVcpuTellsTheRunningOne) {
  options.cr3 = {second.page_table.raw()};
  expect_image_at(32 * mib);
  options.cr3 = {0, third.page_table.raw() | 0x1};  // with a PCID; the other vCPU is off
  expect_image_at(64 * mib);
}

TEST_F(StaleKernelsTest, AVcpuInUserModeUnderPageTableIsolationTellsItToo) {
  options.cr3 = {third.user_table.raw()};
  expect_image_at(64 * mib);
}

TEST_F(StaleKernelsTest, AClockThatMovesTellsTheRunningOne) {
  memory.set_live(true);
  auto moving = ticking(second.jiffies);
  const auto kernel = find_kernel(moving, options);
  ASSERT_TRUE(kernel) << kernel.error().message;
  EXPECT_EQ((*kernel)->space().root(), second.page_table);
  const auto& candidates = (*kernel)->attach_report().candidates;
  ASSERT_EQ(candidates.size(), 3U);
  EXPECT_FALSE(candidates[0].live);
  EXPECT_TRUE(candidates[1].live);
  EXPECT_EQ(candidates[1].why, "its clock moves");
}

TEST_F(StaleKernelsTest, OtherwiseTheyAreNamed) {
  expect_error(ErrorCode::ambiguous, "0: Linux version 6.1.0-test");
  expect_error(ErrorCode::ambiguous, "2: Linux version 6.12.0-test #1 (build-id cdcdcdcdcdcd");
}

TEST_F(StaleKernelsTest, TheUserChooses) {
  options.choose = "1";
  expect_image_at(32 * mib);
  options.choose = "cdcd";
  expect_image_at(64 * mib);
  options.choose = "abab";  // two of them
  expect_error(ErrorCode::ambiguous, "none shows that it runs");
  options.choose = "7";
  expect_error(ErrorCode::not_found, "no such kernel");
}

TEST_F(StaleKernelsTest, AnImageNamesTheKernelThatWasRead) {
  options.cr3 = {first.page_table.raw(), second.page_table.raw()};
  options.page_table = second.page_table;
  expect_image_at(32 * mib);
  options.page_table = GuestPhys(0x1000);  // no page table
  expect_error(ErrorCode::ambiguous, "none shows that it runs");
}

TEST_F(StaleKernelsTest, AnIndexIsTheSameWhateverIsKnown) {
  memory.set_live(true);
  options.cr3 = {third.page_table.raw(), second.page_table.raw()};
  auto moving = ticking(third.jiffies);
  const auto kernel = find_kernel(moving, options);
  ASSERT_TRUE(kernel) << kernel.error().message;
  const auto& candidates = (*kernel)->attach_report().candidates;
  ASSERT_EQ(candidates.size(), 3U);
  for (const auto& [index, planted] : {std::pair(0U, first), {1U, second}, {2U, third}}) {
    EXPECT_EQ(candidates[index].index, index);
    EXPECT_EQ(candidates[index].rodata, planted.rodata);
  }
}

/// A kernel that crashed and started another one to take a dump; the vCPUs that are not the
/// other's stand where they were stopped.
class CrashedKernelTest : public FindKernelTest {
 protected:
  PlantedKernel crashed = plant_kernel(memory, {.text = GuestPhys(48 * mib), .crashed = true});
  PlantedKernel dumping = plant_kernel(memory, {.text = GuestPhys(16 * mib)});
  void expect_dumping(std::string_view why) {
    const auto kernel = found();
    ASSERT_TRUE(kernel);
    EXPECT_EQ(kernel->space().root(), dumping.page_table);
    const auto& candidates = kernel->attach_report().candidates;
    ASSERT_EQ(candidates.size(), 2U);
    EXPECT_TRUE(candidates[0].live);
    EXPECT_EQ(candidates[0].why, why);
  }
};

TEST_F(CrashedKernelTest, IsNotTheOneThatRuns) {
  options.cr3 = {crashed.page_table.raw(), dumping.user_table.raw()};
  for (const bool live : {false, true}) {
    memory.set_live(live);
    expect_dumping("a vCPU's page table maps it, and it has not crashed");
  }
  memory.set_live(false);
  options.cr3.clear();
  expect_dumping("the others have crashed");
}

TEST_F(CrashedKernelTest, IsTakenIfOnlyItsPageTableIsKnown) {
  options.cr3 = {crashed.page_table.raw()};  // as the VMCOREINFO of a dump by the other says
  const auto kernel = found();
  ASSERT_TRUE(kernel);
  EXPECT_EQ(kernel->space().root(), crashed.page_table);
}

TEST_F(CrashedKernelTest, AmongSeveralThatDidNotCrashNothingIsGuessed) {
  plant_kernel(memory, {.text = GuestPhys(32 * mib)});
  expect_error(ErrorCode::ambiguous, "3 are in memory");
}

TEST_F(FindKernelTest, ALeftoverThatNoVcpuMapsIsNotTheRunningKernel) {
  plant_kernel(memory, {});
  memory.set_live(true);
  options.cr3 = {0};
  expect_error(ErrorCode::not_found, "no vCPU maps it");
  options.choose = "0";
  EXPECT_TRUE(find());
}

TEST_F(FindKernelTest, BesideAnImageThatIsStartingALoneKernelMustShowThatItRuns) {
  plant_kernel(memory, {});
  plant_kernel(memory, {.text = GuestPhys(32 * mib), .started = false});
  EXPECT_TRUE(find()) << "an image on disk cannot show it";
  memory.set_live(true);
  expect_error(ErrorCode::ambiguous, "1 and 1 that make no sense are in memory");
}

class CachedKernelTest : public FindKernelTest {
 protected:
  CachedKernelTest() {
    std::string pattern = fs::temp_directory_path() / "vmsight-kernel-XXXXXX";
    options.cache_dir = ::mkdtemp(pattern.data());
  }
  ~CachedKernelTest() override { fs::remove_all(options.cache_dir); }
  void learn(const KernelSpec& spec) {
    plant_kernel(memory, spec);
    const auto kernel = found();
    ASSERT_TRUE(kernel);
    EXPECT_FALSE(kernel->attach_report().cache_used);
    EXPECT_TRUE(kernel->member("task_struct", "comm"));
    EXPECT_FALSE(kernel->member("task_struct", "pid"));
    EXPECT_TRUE(kernel->symbol("filler_0123"));
    EXPECT_TRUE(kernel->save_cache());
  }
  /// The other boot: the same build elsewhere.
  static KernelSpec elsewhere(KernelSpec spec) {
    spec.text = GuestPhys(48 * mib);
    spec.text_va = GuestVirt(0xffffffffa6600000);
    return spec;
  }
};

TEST_F(CachedKernelTest, TheNextBootOfTheBuildNeedsNoTables) {
  for (const Encoding encoding : {Encoding::absolute_percpu, Encoding::from_slot}) {
    const KernelSpec spec{.encoding = encoding, .build_id = std::byte(static_cast<int>(encoding))};
    memory = ByteMemory({{GuestPhys(0), 80 * mib}});
    learn(spec);
    ByteMemory next({{GuestPhys(0), 80 * mib}});
    const PlantedKernel planted = plant_kernel(next, elsewhere(spec));
    next.write(planted.kallsyms, std::vector<std::byte>(64 << 10));  // would be noticed
    const auto kernel = find_kernel(next, options);
    ASSERT_TRUE(kernel) << kernel.error().message;
    EXPECT_TRUE((*kernel)->attach_report().cache_used);
    EXPECT_EQ((*kernel)->attach_report().symbols_ns, 0U);
    EXPECT_EQ((*kernel)->symbol("filler_0123"), GuestVirt(0xffffffffa6600000) + 0x1000 + 16 * 123);
    EXPECT_EQ((*kernel)->member("task_struct", "comm")->offset, test::synthetic_comm_offset);
    EXPECT_EQ((*kernel)->attach_report().types_ns, 0U);
  }
}

TEST_F(CachedKernelTest, WhatItDoesNotKnowIsLookedUp) {
  learn({});
  const auto kernel = found();
  ASSERT_TRUE(kernel);
  EXPECT_TRUE(kernel->attach_report().cache_used);
  EXPECT_TRUE(kernel->symbol("filler_0001"));
  EXPECT_EQ(kernel->enumerator("ANSWER"), 42);
}

TEST_F(CachedKernelTest, WhatDoesNotFitTheGuestIsRebuilt) {
  learn({});
  for (const auto& file : fs::directory_iterator(options.cache_dir)) {
    std::ifstream in(file.path());
    std::string text(std::istreambuf_iterator<char>(in), {});
    auto memo = parse_memo(text);
    ASSERT_TRUE(memo);
    memo->members.set("task_struct comm", Member{.offset = 32, .size = 16, .count = 16});
    std::ofstream(file.path(), std::ios::trunc) << format_memo(*memo);
  }
  const auto kernel = found();
  ASSERT_TRUE(kernel);
  EXPECT_FALSE(kernel->attach_report().cache_used);
  EXPECT_EQ(kernel->attach_report().cache_note, "rebuilt: what it says does not fit the guest");
  EXPECT_EQ(kernel->member("task_struct", "comm")->offset, test::synthetic_comm_offset);
}

TEST_F(CachedKernelTest, AnotherBuildWithTheSameBannerIsNotMistaken) {
  learn({});
  memory = ByteMemory({{GuestPhys(0), 80 * mib}});
  plant_kernel(memory, {.order = TableOrder::old, .build_id = std::byte{0x77}});
  const auto kernel = found();
  ASSERT_TRUE(kernel);
  EXPECT_FALSE(kernel->attach_report().cache_used);
  EXPECT_EQ(kernel->build_id().substr(0, 4), "7777");
}

TEST_F(CachedKernelTest, DamageIsSaidAndRepaired) {
  learn({});
  for (const auto& file : fs::directory_iterator(options.cache_dir))
    fs::resize_file(file.path(), 99);
  const auto kernel = found();
  ASSERT_TRUE(kernel);
  EXPECT_NE(kernel->attach_report().cache_note.find("rebuilt"), std::string::npos);
  ASSERT_TRUE(kernel->save_cache());
  EXPECT_TRUE(found()->attach_report().cache_used);
}

/// A VM whose kernel was found before; RAM holds the images of three boots.
class KnownPlaceTest : public StaleKernelsTest {
 protected:
  KnownPlaceTest() {
    std::string pattern = fs::temp_directory_path() / "vmsight-kernel-XXXXXX";
    options.cache_dir = ::mkdtemp(pattern.data());
    options.vm_identity = "vm-4711-123456-0123-abcd";
    memory.set_live(true);
  }
  ~KnownPlaceTest() override { fs::remove_all(options.cache_dir); }
  std::unique_ptr<Kernel> found_while_ticking(GuestPhys clock) {
    auto moving = ticking(clock);
    auto kernel = find_kernel(moving, options);
    EXPECT_TRUE(kernel) << (kernel ? "" : kernel.error().message);
    if (!kernel) return nullptr;
    text = (*kernel)->space().image().start.raw() - (*kernel)->space().image().delta;
    candidates = (*kernel)->attach_report().candidates;
    return *std::move(kernel);
  }
  std::uint64_t text = 0;  // of the kernel found last
  std::vector<KernelCandidate> candidates;
};

TEST_F(KnownPlaceTest, TheSecondLookDoesNotSearchRam) {
  ASSERT_TRUE(found_while_ticking(second.jiffies));
  EXPECT_EQ(candidates.size(), 3U);
  for (int look = 0; look < 2; ++look) {
    ASSERT_TRUE(found_while_ticking(second.jiffies));
    EXPECT_EQ(text, 32 * mib);
    ASSERT_EQ(candidates.size(), 1U);
    EXPECT_TRUE(candidates[0].live);
    EXPECT_NE(candidates[0].why.find("where it was"), std::string::npos);
  }
  options.vm_identity = "vm-4712-1-0123-abcd";
  ASSERT_TRUE(found_while_ticking(second.jiffies));
  EXPECT_EQ(candidates.size(), 3U) << "another VM's place is believed";
}

TEST_F(KnownPlaceTest, AfterARebootTheOldImageIsNotBelieved) {
  ASSERT_TRUE(found_while_ticking(second.jiffies));
  ASSERT_TRUE(found_while_ticking(first.jiffies));
  EXPECT_EQ(text, 16 * mib);
  EXPECT_EQ(candidates.size(), 3U);
  ASSERT_TRUE(found_while_ticking(first.jiffies));
  EXPECT_EQ(text, 16 * mib);
  EXPECT_EQ(candidates.size(), 1U);
}

TEST_F(KnownPlaceTest, WhatIsSomethingElseByNowIsNotBelieved) {
  ASSERT_TRUE(found_while_ticking(second.jiffies));
  const KernelCache cache(options.cache_dir);
  auto place = cache.find_place(options.vm_identity);
  ASSERT_TRUE(place);
  for (const std::uint64_t rodata : {std::uint64_t{0x1000}, 79 * mib, std::uint64_t{1} << 40}) {
    place->rodata = GuestPhys(rodata);
    ASSERT_TRUE(cache.save_place(options.vm_identity, *place));
    ASSERT_TRUE(found_while_ticking(second.jiffies));
    EXPECT_EQ(text, 32 * mib);
    EXPECT_EQ(candidates.size(), 3U);
  }
}

TEST_F(KnownPlaceTest, AChoiceOfTheUsersSeesAllOfThem) {
  ASSERT_TRUE(found_while_ticking(second.jiffies));
  options.choose = "2";
  ASSERT_TRUE(found_while_ticking(second.jiffies));
  EXPECT_EQ(text, 64 * mib);
  EXPECT_EQ(candidates.size(), 3U);
}

}  // namespace
}  // namespace vmsight::kernel_find_test
