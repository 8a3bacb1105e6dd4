// Processes by hand: what decides their validity, their times, names and arguments; and a whole
// table of them, standing still, changing while it is read, and forged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "state/process_table.h"
#include "support/faulty_memory.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::state_processes_test {
namespace {

using test::FaultPolicy;
using test::FaultyMemory;
using test::MadeUpKernel;
using test::SyntheticGuest;
using ::testing::ElementsAre;
using ::testing::StartsWith;

TEST(Judge, FromTheKernelsOwnMarks) {
  EXPECT_EQ(judge({.has_pid = true, .has_signals = true}), Validity::live);
  EXPECT_EQ(judge({.state = 0x800, .has_pid = true, .has_signals = true}), Validity::fresh);
  EXPECT_EQ(judge({.flags = 4, .has_pid = true, .has_signals = true}), Validity::dying);
  EXPECT_EQ(judge({.exit_state = 0x20, .flags = 4, .has_pid = true, .has_signals = true}),
            Validity::zombie);
  EXPECT_EQ(judge({.exit_state = 0x10, .has_pid = true, .has_signals = true}),
            Validity::as_good_as_dead);
  EXPECT_EQ(judge({.has_pid = false, .has_signals = true}), Validity::as_good_as_dead);
  EXPECT_EQ(judge({.has_pid = true, .has_signals = false}), Validity::as_good_as_dead);
}

TEST(CpuTimes, ExactTimeIsDividedAsTheSamples) {
  const auto shown = [](CpuTime sampled, CpuTime before) {
    const CpuTime time = adjust_cpu_time(sampled, before);
    return std::pair(time.user, time.system);
  };
  EXPECT_EQ(shown({30, 10, 100}, {}), std::pair(std::uint64_t{75}, std::uint64_t{25}));
  EXPECT_EQ(shown({0, 0, 100}, {}), std::pair(std::uint64_t{100}, std::uint64_t{0}));
  EXPECT_EQ(shown({0, 5, 100}, {}), std::pair(std::uint64_t{0}, std::uint64_t{100}));
  // Neither ever goes back.
  EXPECT_EQ(shown({30, 10, 100}, {10, 40, 0}), std::pair(std::uint64_t{60}, std::uint64_t{40}));
  EXPECT_EQ(shown({10, 30, 100}, {40, 10, 0}), std::pair(std::uint64_t{40}, std::uint64_t{60}));
  EXPECT_EQ(shown({30, 10, 100}, {90, 20, 0}), std::pair(std::uint64_t{90}, std::uint64_t{20}));
  // Forged times overflow nothing.
  const std::uint64_t most = ~std::uint64_t{0};
  EXPECT_EQ(adjust_cpu_time({most, most, most}, {}).runtime, most);
}

TEST(Arguments, SplitAtTheirEnds) {
  using namespace std::string_view_literals;
  EXPECT_THAT(split_arguments(""sv), ElementsAre());
  EXPECT_THAT(split_arguments("ls\0-l\0"sv), ElementsAre("ls", "-l"));
  EXPECT_THAT(split_arguments("ls\0\0x\0"sv), ElementsAre("ls", "", "x"));
  EXPECT_THAT(split_arguments("title without end"sv), ElementsAre("title without end"));
  EXPECT_THAT(split_arguments("\0"sv), ElementsAre(""));
}

/// Kernel threads named k1, k2 ... without files or memory.
class ProcessTableTest : public ::testing::Test {
 protected:
  ProcessTableTest() {
    kernel_.lack("worker");
    kernel_.lack("mm_struct.mm_mt");
    kernel_.set("task_struct", "comm", {2048, 16, 0, 0, 1});
    kernel_.set("pid", "numbers", {512, 16, 0, 0, 1});
    kernel_.set_size("upid", 32);
    processes_ = ProcessesReader::resolve(kernel_).value();
    paths_ = Paths::resolve(kernel_).value();
    init_ = *kernel_.symbol("init_task");
    for (std::int32_t pid = 1; pid <= 5; ++pid) tasks_.push_back(task(pid));
    link();
  }

  GuestVirt task(std::int32_t pid) {
    const GuestVirt at = guest_.allocate(4096, 64), signal = guest_.allocate(1024);
    const GuestVirt cred = guest_.allocate(256), number = guest_.allocate(1024);
    const auto put = [&](std::string_view member, auto value) {
      kernel_.put(at, "task_struct", member, value);
    };
    put("pid", pid);
    put("tgid", pid);
    put("start_boottime", std::uint64_t(pid) * 1000);
    put("flags", std::uint32_t{TaskNames::pf_kthread});
    put("comm", std::array<char, 4>{'k', static_cast<char>('0' + pid)});
    put("real_parent", init_.raw());
    put("signal", signal.raw());
    put("sighand", signal.raw());
    put("real_cred", cred.raw());
    put("thread_pid", number.raw());
    kernel_.put(signal, "signal_struct", "nr_threads", std::uint32_t{1});
    kernel_.put(cred, "cred", "uid", std::uint32_t(100 + pid));
    kernel_.put(number + 512, "upid", "nr", pid);
    kernel_.put(number + 512, "upid", "ns", guest_.allocate(512).raw());
    return at;
  }
  GuestVirt node(GuestVirt task) { return task + kernel_.offset("task_struct", "tasks"); }
  void link() {
    std::vector<GuestVirt> nodes;
    for (GuestVirt task : tasks_) nodes.push_back(node(task));
    guest_.link_list(node(init_), nodes);
  }

  Result<void> read(GuestMemory& memory) {
    state_.clear();
    Reader reader(memory, space_);
    Context context{kernel_, reader, options_, state_, {}, {}};
    Shared shared;
    paths_->begin(reader, state_.arena, memory.is_live());
    ProcessTable table(*processes_, *paths_, shared);
    auto counts = ChangeCounts::resolve(kernel_, memory);
    VMSIGHT_TRY_VOID(counts->begin(memory));
    auto result = table.read(context, part_all | part_threads, *counts);
    retries_ = table.retries();
    return result;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const Process& process : state_.processes) {
      names.push_back(
          fmt::format("{}:{}:{}", process.pid, process.comm, to_string(process.validity)));
    }
    return names;
  }

  SyntheticGuest guest_;
  MadeUpKernel kernel_{guest_};
  AddressSpace space_ = guest_.space();
  StateOptions options_;
  std::optional<ProcessesReader> processes_;
  std::optional<Paths> paths_;
  GuestVirt init_;
  std::vector<GuestVirt> tasks_;
  State state_;
  std::uint64_t retries_ = 0;
};

TEST_F(ProcessTableTest, ReadsAllByPid) {
  std::swap(tasks_[0], tasks_[4]);
  link();
  ASSERT_TRUE(read(guest_.memory()));
  EXPECT_THAT(names(),
              ElementsAre("1:k1:live", "2:k2:live", "3:k3:live", "4:k4:live", "5:k5:live"));
  EXPECT_EQ(state_.processes[2].uid, 103u);
  EXPECT_THAT(state_.processes[2].ns_pids, ElementsAre(3));
  EXPECT_EQ(state_.processes[2].start_time_ns, 3000u);
  EXPECT_EQ(state_.threads.size(), 5u);
  EXPECT_TRUE(state_.problems.empty());
}

TEST_F(ProcessTableTest, OnlyThePidAskedFor) {
  options_.pid = 4;
  ASSERT_TRUE(read(guest_.memory()));
  EXPECT_THAT(names(), ElementsAre("4:k4:live"));
}

TEST_F(ProcessTableTest, ChangedWhileItWasRead) {
  guest_.memory().set_live(true);
  // The proof of k3 fails once: as if its name had changed right after it was read.
  int readings = 0;
  FaultPolicy policy;
  const GuestPhys page = space_.translate(guest_.memory(), tasks_[2])->page();
  const std::uint64_t comm = tasks_[2].page_offset() + kernel_.offset("task_struct", "comm");
  policy.change = [&](GuestPhys read, std::span<std::byte> bytes) {
    if (read == page && ++readings == 1) bytes[comm + 1] = std::byte{'?'};
  };
  FaultyMemory memory(guest_.memory(), policy);
  ASSERT_TRUE(read(memory));
  EXPECT_THAT(names(),
              ElementsAre("1:k1:live", "2:k2:live", "3:k3:live", "4:k4:live", "5:k5:live"));
  EXPECT_GT(retries_, 0u);
  EXPECT_EQ(state_.view.inconsistencies, Inconsistencies{.changed = 1});
  EXPECT_TRUE(state_.problems.empty());
}

TEST_F(ProcessTableTest, GoneOrAnotherOneInItsPlace) {
  guest_.memory().set_live(true);
  const auto page = [&](GuestVirt task) { return space_.translate(guest_.memory(), task)->page(); };
  const GuestPhys dies = page(tasks_[1]), is_reused = page(tasks_[3]);
  const std::uint64_t start =
      tasks_[3].page_offset() + kernel_.offset("task_struct", "start_boottime");
  const std::uint64_t link = tasks_[1].page_offset() + kernel_.offset("task_struct", "tasks");
  std::map<std::uint64_t, int> readings;
  FaultPolicy policy;
  policy.change = [&](GuestPhys read, std::span<std::byte> bytes) {
    if (++readings[read.raw()] == 1) return;
    if (read == is_reused) bytes[start] ^= std::byte{1};
    if (read == dies) {  // LIST_POISON2, and no number any more
      const std::uint64_t poison = 0xdead000000000122;
      std::memcpy(bytes.data() + link + 8, &poison, sizeof poison);
      bytes[tasks_[1].page_offset() + kernel_.offset("task_struct", "exit_state")] =
          std::byte{0x10};
    }
  };
  FaultyMemory memory(guest_.memory(), policy);
  ASSERT_TRUE(read(memory));
  EXPECT_EQ(state_.view.inconsistencies.died, 1U);
  EXPECT_EQ(state_.view.inconsistencies.recycled, 1U);
}

TEST_F(ProcessTableTest, NeverHoldsStill) {
  guest_.memory().set_live(true);
  char letter = 'a';
  FaultPolicy policy;
  const GuestPhys page = space_.translate(guest_.memory(), tasks_[2])->page();
  const std::uint64_t comm = tasks_[2].page_offset() + kernel_.offset("task_struct", "comm");
  policy.change = [&](GuestPhys read, std::span<std::byte> bytes) {
    if (read == page) bytes[comm + 1] = static_cast<std::byte>(letter++);
  };
  FaultyMemory memory(guest_.memory(), policy);
  ASSERT_TRUE(read(memory));
  ASSERT_EQ(state_.processes.size(), 5u);
  EXPECT_EQ(state_.processes[2].validity, Validity::torn);
  EXPECT_EQ(state_.view.inconsistencies, (Inconsistencies{.changed = 1, .torn = 1}));
  ASSERT_EQ(state_.problems.size(), 1u);
  EXPECT_EQ(state_.problems[0].where, "process 3");
}

TEST_F(ProcessTableTest, RecycledTaskIsDropped) {
  guest_.memory().set_live(true);
  // k3 was taken off the list after we had walked it: its identity is another's by then.
  Reader reader(guest_.memory(), space_);
  const TaskIdentity before = processes_->tasks().identity(reader, tasks_[2]);
  kernel_.put(tasks_[2], "task_struct", "start_boottime", std::uint64_t{77});
  Context context{kernel_, reader, options_, state_, {}, {}};
  Proofs proofs;
  Shared shared;
  paths_->begin(reader, state_.arena, true);
  ProcessContext process{context, *paths_, proofs, shared, part_all};
  EXPECT_FALSE(processes_->read(process, before));
  EXPECT_TRUE(state_.processes.empty());
}

TEST_F(ProcessTableTest, ListThatDoesNotHoldTogetherIsToldAndReadForward) {
  guest_.put_pointer(node(tasks_[3]) + 8, node(tasks_[0]));
  ASSERT_TRUE(read(guest_.memory()));
  EXPECT_EQ(state_.processes.size(), 5u);
  ASSERT_EQ(state_.problems.size(), 1u);
  EXPECT_EQ(state_.problems[0].where, "processes");
}

TEST_F(ProcessTableTest, ListThatGoesInCirclesEnds) {
  guest_.put_pointer(node(tasks_[4]), node(tasks_[1]));
  ASSERT_TRUE(read(guest_.memory()));
  EXPECT_EQ(state_.processes.size(), 5u);
  EXPECT_FALSE(state_.problems.empty());
}

TEST_F(ProcessTableTest, WildPointerTearsOneProcessOnly) {
  kernel_.put(tasks_[1], "task_struct", "real_cred", std::uint64_t{0x123456789});
  ASSERT_TRUE(read(guest_.memory()));
  EXPECT_THAT(names(),
              ElementsAre("1:k1:live", "2:k2:torn", "3:k3:live", "4:k4:live", "5:k5:live"));
  EXPECT_EQ(state_.processes[1].uid, std::nullopt);
  ASSERT_EQ(state_.problems.size(), 1u);
  EXPECT_EQ(state_.problems[0].where, "process 2");
}

TEST_F(ProcessTableTest, MapsInTheMiddleOfAChange) {
  const GuestVirt mm = guest_.allocate(4096);
  kernel_.put(tasks_[1], "task_struct", "flags", std::uint32_t{0});
  kernel_.put(tasks_[1], "task_struct", "mm", mm.raw());
  kernel_.put(mm, "mm_struct", "map_count",
              std::uint32_t{1});  // of which there is none in the list
  const auto told = [&](auto lock, std::string_view member = "mmap_lock.count") {
    kernel_.put(mm, "mm_struct", member, lock);
    EXPECT_TRUE(read(guest_.memory()));
    EXPECT_EQ(state_.processes.at(1).validity, Validity::torn);
    return state_.problems.empty() ? "" : std::string(state_.problems[0].what);
  };
  const std::string_view changing = "the guest is changing its memory maps, whose lock it holds";
  EXPECT_EQ(told(std::uint64_t{1}), changing);  // held for writing
  EXPECT_THAT(told(std::uint64_t{0x100}),
              StartsWith("is not readable"));  // for reading: so it is really broken
  kernel_.lack("mm_struct.mmap_lock.count");   // as PREEMPT_RT
  processes_ = ProcessesReader::resolve(kernel_).value();
  EXPECT_EQ(told(std::uint32_t{1U << 30}, "mmap_lock.rwbase.readers"), changing);
}

TEST_F(ProcessTableTest, VmThatDiesIsAnError) {
  guest_.memory().set_live(true);
  FaultPolicy policy;
  policy.gone_after = 4;
  FaultyMemory memory(guest_.memory(), policy);
  const Result<void> result = read(memory);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::vm_gone);
}

}  // namespace
}  // namespace vmsight::state_processes_test
