// Control groups of two hierarchies: their trees, limits and usage, and the groups of processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/memory_decorator.h"
#include "state/cgroups.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::state_cgroups_test {
namespace {

using test::MadeUpKernel;
using test::SyntheticGuest;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr std::uint32_t cgroup_in_root = 1024, online = 2, visible = 8;
constexpr std::uint64_t unlimited = ~0ULL >> 1 >> page_shift;
enum Subsystem : unsigned { cpu, memory, pids, subsystems };

/// A live guest in which one byte is never the same when it is looked at again.
class RestlessMemory final : public MemoryDecorator {
 public:
  RestlessMemory(GuestMemory& inner, GuestPhys at) : MemoryDecorator(inner), at_(at) {}
  bool is_live() const override { return true; }
  Result<void> read_fresh(std::span<FreshRead> reads) override {
    VMSIGHT_TRY_VOID(inner_->read_fresh(reads));
    for (FreshRead& read : reads) {
      if (at_ < read.from || at_ >= read.from + read.into.size()) continue;
      read.into[at_ - read.from] ^= std::byte{0x40};
    }
    return {};
  }

 private:
  GuestPhys at_;
};

class CgroupsTest : public ::testing::Test {
 protected:
  CgroupsTest() {
    kernel_.set("cgroup_root", "cgrp", {cgroup_in_root, 1024, 0, 0, 1});
    kernel_.set("cgroup_root", "name", {512, 64, 0, 0, 1});
    kernel_.set("cgroup", "self", {0, 256, 0, 0, 1});
    kernel_.start_at("cgroup", 256);
    kernel_.set("cgroup", "subsys", {512, 8 * subsystems, 0, 0, subsystems});
    kernel_.set("cgroup", "bstat", {600, 8, 0, 0, 1});
    kernel_.set("cgroup", "last_bstat", {616, 8, 0, 0, 1});
    kernel_.set("cgroup_base_stat", "cputime", {0, 8, 0, 0, 1});
    kernel_.set("task_cputime", "sum_exec_runtime", {0, 8, 0, 0, 1});
    kernel_.set("mem_cgroup", "css", {0, 256, 0, 0, 1});
    kernel_.set("mem_cgroup", "memory", {512, 256, 0, 0, 1});
    kernel_.set("mem_cgroup", "swap", {1024, 256, 0, 0, 1});
    kernel_.set("pids_cgroup", "css", {0, 256, 0, 0, 1});
    kernel_.start_at("pids_cgroup", 256);
    kernel_.set("task_group", "css", {0, 256, 0, 0, 1});
    kernel_.start_at("task_group", 256);
    kernel_.set("task_group", "cfs_bandwidth", {512, 256, 0, 0, 1});
    for (const char* lacking : {"cgroup.rstat_base_cpu", "cgrp_dfl_inhibit_ss_mask"})
      kernel_.lack(lacking);
    const std::pair<const char*, std::int64_t> numbers[] = {
        {"CSS_ONLINE", online},     {"CSS_VISIBLE", visible}, {"CGROUP_SUBSYS_COUNT", subsystems},
        {"memory_cgrp_id", memory}, {"pids_cgrp_id", pids},   {"cpu_cgrp_id", cpu}};
    for (const auto& [name, value] : numbers) kernel_.set_enumerator(name, value);
    const char* names[] = {"cpu", "memory", "pids"};
    for (unsigned i = 0; i < subsystems; ++i) {
      const GuestVirt subsystem = guest_.allocate(256);
      kernel_.put(subsystem, "cgroup_subsys", "name", guest_.place_string(names[i]).raw());
      kernel_.put(subsystem, "cgroup_subsys", "legacy_name", guest_.place_string(names[i]).raw());
      guest_.put(*kernel_.symbol("cgroup_subsys") + 8 * i, subsystem.raw());
    }
    kernel_.set_symbol("cgrp_dfl_root", guest_.allocate(4096));
    guest_.put(*kernel_.symbol("cgrp_dfl_visible"), std::uint8_t{1});
    unified_ = root(*kernel_.symbol("cgrp_dfl_root"), 0, 0b111, "");
    named_ = root(guest_.allocate(4096), 5, 0, "lab");
    link_roots({named_, unified_});
  }

  GuestVirt root(GuestVirt at, std::uint32_t number, std::uint64_t mask, const std::string& name) {
    kernel_.put(at, "cgroup_root", "hierarchy_id", number);
    kernel_.put(at, "cgroup_root", "subsys_mask", mask);
    guest_.write(at + kernel_.offset("cgroup_root", "name"), std::as_bytes(std::span(name)));
    fill(at + cgroup_in_root, at, {}, "");
    return at;
  }
  void link_roots(const std::vector<GuestVirt>& roots) {
    std::vector<GuestVirt> nodes;
    for (const GuestVirt root : roots)
      nodes.push_back(root + kernel_.offset("cgroup_root", "root_list"));
    guest_.link_list(*kernel_.symbol("cgroup_roots"), nodes);
  }
  GuestVirt top(GuestVirt root) const { return root + cgroup_in_root; }

  void fill(GuestVirt at, GuestVirt root, GuestVirt parent, const std::string& name) {
    const GuestVirt node = guest_.allocate(256);
    kernel_.put(at, "cgroup", "root", root.raw());
    kernel_.put(at, "cgroup", "kn", node.raw());
    kernel_.put(at, "cgroup", "rstat_cpu", idle_.raw());
    kernel_.put(at, "cgroup", "dom_cgrp", at.raw());
    kernel_.put(at, "cgroup_subsys_state", "flags", std::uint64_t{online});
    kernel_.put(at, "cgroup_subsys_state", "parent", parent.raw());
    kernel_.put(node, "kernfs_node", "name", guest_.place_string(name).raw());
    kernel_.put(node, "kernfs_node", "id", std::uint64_t{100 + made_++});
    if (parent != GuestVirt()) {
      Reader reader(guest_.memory(), space_);
      const GuestVirt above = reader.pointer(parent + kernel_.offset("cgroup", "kn"));
      kernel_.put(node, "kernfs_node", "parent", above.raw());
    }
    guest_.link_list(at + kernel_.offset("cgroup_subsys_state", "children"), {});
  }
  GuestVirt group(GuestVirt root, GuestVirt parent, const std::string& name) {
    const GuestVirt at = guest_.allocate(1024);
    fill(at, root, parent, name);
    children_[parent.raw()].push_back(at + kernel_.offset("cgroup_subsys_state", "sibling"));
    guest_.link_list(parent + kernel_.offset("cgroup_subsys_state", "children"),
                     children_[parent.raw()]);
    return at;
  }
  /// What a controller keeps of a group.
  GuestVirt control(GuestVirt cgroup, Subsystem by) {
    const GuestVirt state = guest_.allocate(2048);
    kernel_.put(state, "cgroup_subsys_state", "flags", std::uint64_t{online | visible});
    guest_.put(cgroup + 512 + 8 * by, state.raw());
    return state;
  }
  void put_counter(GuestVirt at, const char* part, std::uint64_t pages) {
    kernel_.put(at, "page_counter", part, pages);
  }

  Process task_in(const std::vector<GuestVirt>& cgroups, std::uint32_t flags = 0) {
    const GuestVirt task = guest_.allocate(1024), set = guest_.allocate(1024);
    kernel_.put(task, "task_struct", "cgroups", set.raw());
    kernel_.put(task, "task_struct", "pid", std::uint32_t{7});
    kernel_.put(task, "task_struct", "start_boottime", std::uint64_t{70});
    std::vector<GuestVirt> nodes;
    for (const GuestVirt cgroup : cgroups) {
      const GuestVirt link = guest_.allocate(256);
      kernel_.put(link, "cgrp_cset_link", "cgrp", cgroup.raw());
      nodes.push_back(link + kernel_.offset("cgrp_cset_link", "cgrp_link"));
    }
    guest_.link_list(set + kernel_.offset("css_set", "cgrp_links"), nodes);
    Process process;
    process.task = task;
    process.pid = 7;
    process.start_time_ns = 70;
    process.flags = flags;
    return process;
  }

  const State& read(std::vector<Process> processes = {}, unsigned parts = part_cgroups) {
    return read_by(guest_.memory(), std::move(processes), parts);
  }
  /// In the view of a guest that never lets go of changing the word of this process.
  const State& read_restless(const Process& process, std::vector<Process> processes) {
    const GuestVirt word = process.task + kernel_.offset("task_struct", "cgroups");
    RestlessMemory memory(guest_.memory(), GuestPhys(word - guest_.direct(GuestPhys(0))));
    return read_by(memory, std::move(processes), part_groups_of_processes);
  }
  const State& read_by(GuestMemory& memory, std::vector<Process> processes, unsigned parts) {
    auto cgroups = CgroupsReader::resolve(kernel_);
    EXPECT_TRUE(cgroups) << (cgroups ? "" : cgroups.error().message);
    state_.clear();
    state_.processes = std::move(processes);
    Reader reader(memory, space_);
    StateOptions options;
    options.parts = parts;
    Context context{kernel_, reader, options, state_, {}, {}};
    cgroups->read(context, Shared{});
    return state_;
  }
  static std::vector<std::string> paths(const State& state) {
    std::vector<std::string> lines;
    for (const Cgroup& c : state.cgroups)
      lines.push_back(fmt::format("{}:{}:{}", c.hierarchy, c.name, c.path));
    return lines;
  }

  SyntheticGuest guest_;
  AddressSpace space_ = guest_.space();
  MadeUpKernel kernel_{guest_};
  State state_;
  std::uint64_t made_ = 0;
  std::map<std::uint64_t, std::vector<GuestVirt>> children_;
  GuestVirt idle_ = guest_.allocate(256);  // what a CPU has counted of a group that used none
  GuestVirt unified_, named_;
};

TEST_F(CgroupsTest, ParentsComeBeforeTheirChildrenInOrder) {
  const GuestVirt a = group(unified_, top(unified_), "a"), b = group(unified_, top(unified_), "b");
  group(unified_, a, "with blank");
  group(unified_, b, "c");
  group(named_, top(named_), "x");
  const State& state = read();
  EXPECT_THAT(state.problems, IsEmpty());
  EXPECT_THAT(paths(state), ElementsAre("5:lab:/", "5:lab:/x", "0::/", "0::/a", "0::/a/with blank",
                                        "0::/b", "0::/b/c"));
  EXPECT_EQ(state.cgroups[3].id, 102u);
}

TEST_F(CgroupsTest, LimitsAndUsageAreThoseOfTheControllers) {
  const GuestVirt a = group(unified_, top(unified_), "a");
  const GuestVirt of_memory = control(a, memory), of_pids = control(a, pids),
                  of_cpu = control(a, cpu);
  put_counter(of_memory + 512, "usage", 3);
  put_counter(of_memory + 512, "max", 64);
  put_counter(of_memory + 512, "high", unlimited);
  put_counter(of_memory + 1024, "max", unlimited);
  kernel_.put(of_pids, "pids_cgroup", "counter", std::uint64_t{2});
  kernel_.put(of_pids, "pids_cgroup", "limit", std::uint64_t{(4u << 20) + 1});
  kernel_.put(of_cpu, "task_group", "shares", std::uint64_t{2560} << 10);
  kernel_.put(of_cpu + 512, "cfs_bandwidth", "quota", std::uint64_t{20'000'000});
  kernel_.put(of_cpu + 512, "cfs_bandwidth", "period", std::uint64_t{100'000'000});
  const Cgroup& found = read().cgroups.back();
  EXPECT_EQ(found.memory_bytes, 3 * page_size);
  EXPECT_EQ(found.memory_max, 64 * page_size);
  EXPECT_EQ(found.memory_high, std::nullopt);
  EXPECT_EQ(found.swap_bytes, 0u);
  EXPECT_EQ(found.swap_max, std::nullopt);
  EXPECT_EQ(found.pids, 2u);
  EXPECT_EQ(found.pids_max, std::nullopt);
  EXPECT_EQ(found.cpu_weight, 250u);
  EXPECT_EQ(found.cpu_shares, std::nullopt) << "those are of v1";
  EXPECT_EQ(found.cpu_quota_ns, 20'000'000u);
  EXPECT_EQ(found.cpu_period_ns, 100'000'000u);
}

TEST_F(CgroupsTest, WhatIsNotControlledHasNoValues) {
  group(unified_, top(unified_), "a");
  const Cgroup& found = read().cgroups.back();
  EXPECT_EQ(found.memory_bytes, std::nullopt);
  EXPECT_EQ(found.pids, std::nullopt);
  EXPECT_EQ(found.cpu_weight, std::nullopt);
}

TEST_F(CgroupsTest, ControllersAreThoseThatTheParentGives) {
  const GuestVirt a = group(unified_, top(unified_), "a");
  group(unified_, a, "b");
  kernel_.put(top(unified_), "cgroup", "subtree_control", std::uint64_t{0b110});
  const State& state = read();
  EXPECT_THAT(state.cgroups[1].controllers, ElementsAre("cpu", "memory", "pids"));
  EXPECT_THAT(state.cgroups[2].controllers, ElementsAre("memory", "pids"));
  EXPECT_THAT(state.cgroups[3].controllers, IsEmpty());
}

TEST_F(CgroupsTest, TimeThatWasNotReportedUpwardsCounts) {
  const GuestVirt a = group(unified_, top(unified_), "a"), b = group(unified_, a, "b");
  const GuestVirt per_cpu = guest_.allocate(256);
  kernel_.put(b, "cgroup", "rstat_cpu", per_cpu.raw());
  kernel_.put(per_cpu, "cgroup_rstat_cpu", "bstat", std::uint64_t{70});
  kernel_.put(per_cpu, "cgroup_rstat_cpu", "last_bstat", std::uint64_t{50});
  guest_.put(b + 600, std::uint64_t{100});
  guest_.put(b + 616, std::uint64_t{90});
  guest_.put(a + 600, std::uint64_t{1000});
  const State& state = read();
  EXPECT_EQ(state.cgroups[3].cpu_usage_ns, 120u);
  EXPECT_EQ(state.cgroups[2].cpu_usage_ns, 1030u);
  EXPECT_EQ(state.cgroups[1].cpu_usage_ns, std::nullopt) << "of a root nothing is counted";
}

TEST_F(CgroupsTest, AGroupThatIsBeingRemovedIsNotThere) {
  const GuestVirt a = group(unified_, top(unified_), "a");
  kernel_.put(a, "cgroup_subsys_state", "flags", std::uint64_t{0});
  const State& state = read({task_in({a, top(named_)})});
  EXPECT_THAT(paths(state), ElementsAre("5:lab:/", "0::/"));
  EXPECT_THAT(state.processes[0].cgroups, ElementsAre("5:name=lab:/", "0::/a (deleted)"));
}

TEST_F(CgroupsTest, ProcessesHaveTheLinesOfTheirProcFile) {
  const GuestVirt a = group(unified_, top(unified_), "a"), x = group(named_, top(named_), "x");
  constexpr std::uint32_t exiting = 4;
  const State& state = read({task_in({x, a}), task_in({x, a}, exiting)});
  EXPECT_THAT(state.processes[0].cgroups, ElementsAre("5:name=lab:/x", "0::/a"));
  EXPECT_THAT(state.processes[1].cgroups, ElementsAre("5:name=lab:/", "0::/a"));
}

TEST_F(CgroupsTest, TheUnifiedOneIsHiddenUntilItIsMounted) {
  guest_.put(*kernel_.symbol("cgrp_dfl_visible"), std::uint8_t{0});
  EXPECT_THAT(paths(read()), ElementsAre("5:lab:/"));
}

TEST_F(CgroupsTest, ThreadedGroupsHaveWhatCanBeGivenToThreads) {
  const GuestVirt a = group(unified_, top(unified_), "a");
  kernel_.put(top(unified_), "cgroup", "subtree_control", std::uint64_t{0b111});
  guest_.put(*kernel_.symbol("cgrp_dfl_threaded_ss_mask"), std::uint64_t{0b101});
  kernel_.put(a, "cgroup", "dom_cgrp", top(unified_).raw());
  EXPECT_THAT(read().cgroups.back().controllers, ElementsAre("cpu", "pids"));
}

TEST_F(CgroupsTest, TheRootHasNeitherWhatIsInhibitedNorWhatIsImplicit) {
  guest_.put(*kernel_.symbol("cgrp_dfl_implicit_ss_mask"), std::uint64_t{0b010});
  EXPECT_THAT(read().cgroups.back().controllers, ElementsAre("cpu", "pids"));
}

TEST_F(CgroupsTest, AStateThatIsNotVisibleDoesNotCount) {
  const GuestVirt a = group(unified_, top(unified_), "a");
  kernel_.put(control(a, pids), "cgroup_subsys_state", "flags", std::uint64_t{online});
  EXPECT_EQ(read().cgroups.back().pids, std::nullopt);
}

TEST_F(CgroupsTest, AProtectionOfAllMemoryIsNoNumber) {
  const GuestVirt of_memory = control(group(unified_, top(unified_), "a"), memory);
  put_counter(of_memory + 512, "min", unlimited);
  put_counter(of_memory + 512, "low", 1);
  const Cgroup& found = read().cgroups.back();
  EXPECT_EQ(found.memory_min, std::nullopt);
  EXPECT_EQ(found.memory_low, page_size);
}

TEST_F(CgroupsTest, WeightsStayWithinTheirRange) {
  const GuestVirt of_cpu = control(group(unified_, top(unified_), "a"), cpu);
  kernel_.put(of_cpu, "task_group", "shares", std::uint64_t{2} << 10);  // the least: weight 0.2
  EXPECT_EQ(read().cgroups.back().cpu_weight, 1u);
}

TEST_F(CgroupsTest, TimeOfAGroupThatIsBeingRemovedIsItsParents) {
  const GuestVirt a = group(unified_, top(unified_), "a"), b = group(unified_, a, "b");
  kernel_.put(b, "cgroup_subsys_state", "flags", std::uint64_t{0});
  guest_.put(b + 600, std::uint64_t{100});
  guest_.put(b + 616, std::uint64_t{90});
  const State& state = read();
  EXPECT_THAT(paths(state), ElementsAre("5:lab:/", "0::/", "0::/a"));
  EXPECT_EQ(state.cgroups.back().cpu_usage_ns, 10u);
}

TEST_F(CgroupsTest, CountersThatGoBackwardsAddNothing) {
  const GuestVirt a = group(unified_, top(unified_), "a");
  const GuestVirt torn = guest_.allocate(256);
  kernel_.put(a, "cgroup", "rstat_cpu", torn.raw());
  kernel_.put(torn, "cgroup_rstat_cpu", "last_bstat", std::uint64_t{50});
  guest_.put(a + 600, std::uint64_t{7});
  EXPECT_EQ(read().cgroups.back().cpu_usage_ns, 7u);
}

TEST_F(CgroupsTest, OneThatIsUnreadableHidesNoOther) {
  const GuestVirt a = group(unified_, top(unified_), "a");
  group(unified_, a, "c");
  group(unified_, top(unified_), "b");
  kernel_.put(a, "cgroup", "kn", std::uint64_t{0xffff'dead'0000'0000});
  const State& state = read();
  EXPECT_THAT(paths(state), ElementsAre("5:lab:/", "0::/", "0::/a/c", "0::/b"));
  EXPECT_EQ(state.problems.size(), 1u);
}

TEST_F(CgroupsTest, ProcessesThatAreNoMoreHaveNoLines) {
  Process gone = task_in({top(unified_)}), other = task_in({top(unified_)});
  gone.pid = 8;
  other.start_time_ns = 71;
  const State& state = read({gone, task_in({top(unified_)}), other});
  EXPECT_THAT(state.processes[0].cgroups, IsEmpty());
  EXPECT_THAT(state.processes[1].cgroups, ElementsAre("0::/"));
  EXPECT_THAT(state.processes[2].cgroups, IsEmpty());
  EXPECT_EQ(state.problems.size(), 1u);
}

TEST_F(CgroupsTest, OneThatNeverStandsStillHidesNoOther) {
  const Process good = task_in({top(unified_)}), restless = task_in({top(unified_)}),
                broken = task_in({top(unified_)});
  Process ended = task_in({top(unified_)});
  kernel_.put(broken.task, "task_struct", "cgroups", std::uint64_t{0xffff'dead'0000'0000});
  ended.start_time_ns = 71;
  const State& state = read_restless(restless, {restless, broken, ended, good, ended});
  EXPECT_THAT(
      state.problems,
      ElementsAre(Field(&Problem::what, StartsWith("of 1 processes: not readable")),
                  Field(&Problem::what, StartsWith("of 3 processes: they ended or moved"))));
  for (const std::size_t lacking : {0, 1, 2, 4})
    EXPECT_THAT(state.processes[lacking].cgroups, IsEmpty()) << lacking;
  EXPECT_THAT(state.processes[3].cgroups, ElementsAre("0::/"));
}

TEST_F(CgroupsTest, OneThatNeverStandsStillAndIsUnreadableCountsOnce) {
  const Process broken = task_in({top(unified_)});
  kernel_.put(broken.task, "task_struct", "cgroups", std::uint64_t{0xffff'dead'0000'0000});
  const State& state = read_restless(broken, {task_in({top(unified_)}), broken});
  EXPECT_THAT(state.problems,
              ElementsAre(Field(&Problem::what, StartsWith("of 1 processes: not readable"))));
  EXPECT_THAT(state.processes[0].cgroups, ElementsAre("0::/"));
  EXPECT_THAT(state.processes[1].cgroups, IsEmpty());
}

TEST_F(CgroupsTest, AProcessWithoutASetIsAProblem) {
  const Process lacking = task_in({top(unified_)});
  kernel_.put(lacking.task, "task_struct", "cgroups", std::uint64_t{0});
  const State& state = read({lacking});
  EXPECT_THAT(state.processes[0].cgroups, IsEmpty());
  EXPECT_EQ(state.problems.size(), 1u);
}

TEST_F(CgroupsTest, TheTreesAreNotReadForLinesAlone) {
  const State& state = read({task_in({top(unified_)})}, part_groups_of_processes);
  EXPECT_THAT(state.cgroups, IsEmpty());
  EXPECT_THAT(state.processes[0].cgroups, ElementsAre("0::/"));
}

TEST_F(CgroupsTest, AForgedSetIsAProblemOfItsProcess) {
  const Process forged = task_in({top(unified_)});
  kernel_.put(forged.task, "task_struct", "cgroups", std::uint64_t{0xffff'dead'0000'0000});
  const State& state = read({forged, task_in({top(unified_)})});
  EXPECT_THAT(state.processes[1].cgroups, ElementsAre("0::/"));
  EXPECT_EQ(state.problems.size(), 1u);
}

TEST_F(CgroupsTest, AKernelWithoutThemHasNone) {
  kernel_.lack("cgrp_dfl_root");
  const State& state = read();
  EXPECT_THAT(state.cgroups, IsEmpty());
  EXPECT_THAT(state.problems, IsEmpty());
}

TEST_F(CgroupsTest, OneThatDoesNotTellWhereTheyAreIsRefused) {
  kernel_.lack("cgroup_roots");
  const auto cgroups = CgroupsReader::resolve(kernel_);
  ASSERT_FALSE(cgroups);
  EXPECT_NE(cgroups.error().message.find("cgroup_roots"), std::string::npos);
}

TEST_F(CgroupsTest, ForgedTreesEnd) {
  const GuestVirt a = group(unified_, top(unified_), "a");
  // Its own parent's child list leads back to itself, and it is its own child.
  children_[a.raw()].push_back(a + kernel_.offset("cgroup_subsys_state", "sibling"));
  guest_.link_list(a + kernel_.offset("cgroup_subsys_state", "children"), children_[a.raw()]);
  const State& state = read();
  EXPECT_LE(state.cgroups.size(), std::size_t{1} << 17);
  EXPECT_FALSE(state.problems.empty());
}

TEST_F(CgroupsTest, APathThatNeverEndsIsAProblem) {
  const GuestVirt a = group(unified_, top(unified_), "a");
  Reader reader(guest_.memory(), space_);
  const GuestVirt node = reader.pointer(a + kernel_.offset("cgroup", "kn"));
  kernel_.put(node, "kernfs_node", "parent", node.raw());
  EXPECT_FALSE(read().problems.empty());
}

}  // namespace
}  // namespace vmsight::state_cgroups_test
