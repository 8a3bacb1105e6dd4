// Checks of integrity on a kernel made by hand: each finds what was planted, and nothing else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>

#include "detect/integrity/integrity_check.h"
#include "detect/integrity/text_baseline.h"
#include "probe/kvm/trampoline.h"
#include "unit/detect_checked_kernel.h"

namespace vmsight::detect_integrity_test {
namespace {

using test::CheckedKernel;
using test::Integrity;
using test::MadeUpKernel;
using test::SyntheticGuest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(Integrity, UnknownChecksAreRefused) {
  auto checker = IntegrityChecker::create(kernel_, guest_.memory());
  const std::vector<std::string> names{"nonsense"};
  EXPECT_EQ((*checker)->run(names, nullptr).error().code, ErrorCode::not_found);
}

TEST_F(Integrity, ChecksHaveNamesOfTheirOwn) {
  std::set<std::string_view> names;
  for (const CheckInfo& check : integrity_checks()) names.insert(check.name);
  EXPECT_EQ(names.size(), integrity_checks().size());
}

// ---- system calls ----

class SystemCallTable : public Integrity {
 protected:
  SystemCallTable() : table_(*kernel_.symbol("sys_call_table")) {
    kernel_.set_size("sys_call_table", 32);
    guest_.put(table_, text(0x40).raw());
    guest_.put(table_ + 8, text(0x80).raw());  // and two of padding
  }
  GuestVirt table_;
};

TEST_F(SystemCallTable, OfWrappersIsClean) { expect_clean(run("syscall-table")); }

TEST_F(SystemCallTable, EntryOutsideTextIsFound) {
  guest_.put(table_ + 8, std::uint64_t{0xffffffffc0123000});
  const Findings all = run("syscall-table");
  EXPECT_THAT(objects(all), ElementsAre("sys_call_table[1]"));
  EXPECT_EQ(all.findings[0].sureness, Sureness::certain);
  EXPECT_EQ(all.findings[0].address, table_ + 8);
}

TEST_F(SystemCallTable, EntryThatIsNoWrapperIsFound) {
  for (const std::uint64_t wrong : {text(0xc0).raw(), text(0x44).raw(), std::uint64_t{0}}) {
    guest_.put(table_, wrong);
    EXPECT_THAT(objects(run("syscall-table")), ElementsAre("sys_call_table[0]"));
  }
}

TEST_F(SystemCallTable, DescriptionsTellEntriesThatWereExchanged) {
  const GuestVirt pointers = guest_.allocate(64), one = guest_.allocate(64);
  CheckedKernel kernel(guest_);
  const std::pair<const char*, GuestVirt> symbols[] = {{"_stext", text()},
                                                       {"__x64_sys_read", text(0x40)},
                                                       {"__x64_sys_execve", text(0x80)},
                                                       {"_etext", text(0x2000)}};
  for (const auto& [name, at] : symbols) kernel.add(name, at);
  kernel.made().set_symbol("sys_call_table", table_);
  kernel.made().lack("ia32_sys_call_table");
  kernel.made().lack("x32_sys_call_table");
  kernel.made().lack("module.mem");
  kernel.set_size("sys_call_table", 32);
  guest_.link_list(*kernel.symbol("modules"), {});
  guest_.put(*kernel.symbol("syscalls_metadata"), pointers.raw());
  guest_.put(pointers, one.raw());
  kernel.made().put(one, "syscall_metadata", "name", guest_.place_string("sys_read").raw());
  const auto look = [&] {
    auto checker = IntegrityChecker::create(kernel, guest_.memory());
    return *(*checker)->run(std::vector<std::string>{"syscall-table"}, nullptr);
  };
  expect_clean(look());
  guest_.put(table_, text(0x80).raw());
  EXPECT_THAT(objects(look()), ElementsAre("sys_call_table[0]"));
}

TEST_F(SystemCallTable, WhatCannotBeReadIsSkipped) {
  kernel_.made().set_symbol("sys_call_table", GuestVirt(0xffffffffdead0000));
  expect_skipped(run("syscall-table"), "not readable");
  kernel_.set_size("sys_call_table", 1ULL << 40);
  expect_skipped(run("syscall-table"), "size");
}

// ---- interrupts ----

class Idt : public Integrity {
 protected:
  Idt() : table_(*kernel_.symbol("idt_table")) {
    kernel_.made().lack("idt_descr");
    put_gate(14, text(0x10));
  }
  void put_gate(unsigned vector, GuestVirt handler, std::uint64_t selector = 0x10) {
    const std::uint64_t at = handler.raw();
    guest_.put(table_ + vector * 16,
               (at & 0xffff) | selector << 16 | 0x8e00ULL << 32 | (at >> 16 & 0xffff) << 48);
    guest_.put(table_ + vector * 16 + 8, at >> 32);
  }
  GuestVirt table_;
};

TEST_F(Idt, OfEntriesIsClean) { expect_clean(run("idt")); }

TEST_F(Idt, GatesToOtherPlacesAreFound) {
  put_gate(3, GuestVirt(0xffffffffc0123000));
  put_gate(4, text(0xc0));
  put_gate(5, text(0x10), 0x33);
  const Findings all = run("idt");
  EXPECT_THAT(objects(all), ElementsAre("idt_table[3]", "idt_table[4]", "idt_table[5]"));
  EXPECT_EQ(all.findings[0].sureness, Sureness::certain);
  EXPECT_EQ(all.findings[1].sureness, Sureness::likely);
}

// ---- modules ----

class ModuleViews : public Integrity {
 protected:
  ModuleViews() {
    set_ = guest_.allocate(256);
    guest_.put(*kernel_.symbol("module_kset"), set_.raw());
    kernel_.made().set_size("rb_node", 24);
    // A kset's list is not its first member, as that of no object here is.
    kernel_.made().set("kset", "list", {64, 16, 0, 0, 1});
    kernel_.made().set("kobject", "entry", {64, 16, 0, 0, 1});
    kernel_.made().set("module_kobject", "kobj", {0, 128, 0, 0, 1});
    kernel_.made().set("module_kobject", "mod", {128, 8, 0, 0, 1});
    kernel_.made().set("module", "list", {8, 16, 0, 0, 1});
    kernel_.made().set("module", "state", {0, 4, 0, 0, 1});
    kernel_.made().set("module", "name", {32, 56, 0, 0, 1});
    kernel_.made().set("latch_tree_root", "seq", {0, 4, 0, 0, 1});
    kernel_.made().set("latch_tree_root", "tree", {8, 16, 0, 0, 2});
    kernel_.made().set("mod_tree_node", "mod", {0, 8, 0, 0, 1});
    kernel_.made().set("mod_tree_node", "node", {8, 48, 0, 0, 1});
    kernel_.made().set("rb_node", "rb_right", {8, 8, 0, 0, 1});
    kernel_.made().set("rb_node", "rb_left", {16, 8, 0, 0, 1});
    for (const char* name : {"one", "two"}) modules_.push_back(make(name));
    link(modules_, modules_, modules_);
  }
  GuestVirt make(std::string_view name) {
    const GuestVirt module = guest_.allocate(2048);
    guest_.write(module + 32, std::as_bytes(std::span(name)));
    return module;
  }
  void link(const std::vector<GuestVirt>& list, const std::vector<GuestVirt>& sysfs,
            const std::vector<GuestVirt>& tree) {
    std::vector<GuestVirt> nodes, entries;
    for (const GuestVirt module : list) nodes.push_back(module + 8);
    guest_.link_list(*kernel_.symbol("modules"), nodes);
    for (const GuestVirt module : sysfs) {
      const GuestVirt object = guest_.allocate(256);
      guest_.put(object + 128, module.raw());
      entries.push_back(object + 64);
    }
    entries.push_back(guest_.allocate(256) + 64);  // of a module that is built in
    guest_.link_list(set_ + 64, entries);
    GuestVirt next;
    for (const GuestVirt module : tree) {  // all to the right
      const GuestVirt node = guest_.allocate(128);
      guest_.put(node, module.raw());
      guest_.put(node + 8 + 8, next.raw());
      next = node + 8;
    }
    guest_.put(*kernel_.symbol("mod_tree") + 8, next.raw());
    last_ = next;
  }
  GuestVirt set_, last_;
  std::vector<GuestVirt> modules_;
};

TEST_F(ModuleViews, ThatAgreeAreClean) { expect_clean(run("modules")); }

TEST_F(ModuleViews, HiddenFromTheListIsFound) {
  link({modules_[0]}, modules_, modules_);
  const Findings all = run("modules");
  EXPECT_THAT(objects(all), ElementsAre("module two"));
  EXPECT_EQ(all.findings[0].sureness, Sureness::certain);
  EXPECT_THAT(all.findings[0].sources, ElementsAre("module_kset", "mod_tree"));
}

TEST_F(ModuleViews, HiddenFromSysfsOrTheTreeIsFound) {
  link(modules_, {modules_[0]}, modules_);
  EXPECT_THAT(objects(run("modules")), ElementsAre("module two"));
  link(modules_, modules_, {modules_[1]});
  EXPECT_THAT(objects(run("modules")), ElementsAre("module one"));
}

TEST_F(ModuleViews, OneThatIsLoadedIsNotMissed) {
  guest_.put(modules_[1], std::uint32_t{1});  // MODULE_STATE_COMING
  link(modules_, {modules_[0]}, modules_);
  expect_clean(run("modules"));
}

TEST_F(ModuleViews, ForgedTreesEnd) {
  guest_.put(last_ + 8, last_.raw());
  guest_.put(last_ + 16, last_.raw());
  const Findings all = run("modules");
  EXPECT_THAT(objects(all), IsEmpty());
  EXPECT_THAT(all.reports[0].note, HasSubstr("mod_tree"));
}

// ---- processes ----

class ProcessViews : public Integrity {
 protected:
  ProcessViews() {
    kernel_.made().set("xa_node", "slots", {64, 512, 0, 0, 64});
    node_ = guest_.allocate(1024);
    const GuestVirt head = *kernel_.symbol("init_pid_ns");
    guest_.put(head, node_.raw() | 2);
    init_ = *kernel_.symbol("init_task");
    for (std::int32_t pid = 1; pid <= 4; ++pid) tasks_.push_back(make(pid));
    kernel_.made().set_cpus({64});  // where the first CPU has its own
    guest_.put(*kernel_.symbol("runqueues") + kernel_.made().offset("rq", "curr") + 64,
               tasks_[3].raw());
    link(tasks_, tasks_, tasks_);
  }
  std::uint32_t at(const char* member) { return kernel_.made().offset("task_struct", member); }
  GuestVirt make(std::int32_t pid) {
    const GuestVirt task = guest_.allocate(2048), signal = guest_.allocate(256);
    guest_.put(task + at("pid"), pid);
    guest_.put(task + at("tgid"), pid);
    guest_.put(task + at("thread_pid"), std::uint64_t{1});
    guest_.put(task + at("sighand"), std::uint64_t{1});
    guest_.put(task + at("signal"), signal.raw());
    guest_.link_list(signal + kernel_.made().offset("signal_struct", "thread_head"),
                     std::vector<GuestVirt>{task + at("thread_node")});
    guest_.link_list(task + at("children"), {});
    const GuestVirt number = guest_.allocate(256);
    guest_.put(number + kernel_.made().offset("pid", "tasks"), (task + at("pid_links")).raw());
    numbers_[task] = number;
    return task;
  }
  void link(const std::vector<GuestVirt>& list, const std::vector<GuestVirt>& pids,
            const std::vector<GuestVirt>& children) {
    std::vector<GuestVirt> nodes, siblings;
    for (const GuestVirt task : list) nodes.push_back(task + at("tasks"));
    guest_.link_list(init_ + at("tasks"), nodes);
    for (std::size_t i = 0; i < 64; ++i) {
      const std::uint64_t entry = i < pids.size() ? numbers_[pids[i]].raw() : 0;
      guest_.put(node_ + 64 + i * 8, entry);
    }
    for (const GuestVirt task : children) siblings.push_back(task + at("sibling"));
    guest_.link_list(init_ + at("children"), siblings);
  }
  std::vector<GuestVirt> without(std::size_t index) {
    auto left = tasks_;
    left.erase(left.begin() + static_cast<std::ptrdiff_t>(index));
    return left;
  }

  GuestVirt node_, init_;
  std::vector<GuestVirt> tasks_;
  std::map<GuestVirt, GuestVirt> numbers_;
};

TEST_F(ProcessViews, ThatAgreeAreClean) { expect_clean(run("processes")); }

TEST_F(ProcessViews, HiddenFromOneIsFound) {
  link(without(1), tasks_, tasks_);
  Findings all = run("processes");
  EXPECT_THAT(objects(all), ElementsAre("process 2"));
  EXPECT_EQ(all.findings[0].pid, 2);
  EXPECT_THAT(all.findings[0].sources, ElementsAre("init_pid_ns.idr", "task_struct.children"));
  link(tasks_, without(2), tasks_);
  EXPECT_THAT(objects(run("processes")), ElementsAre("process 3"));
  link(tasks_, tasks_, without(0));
  EXPECT_THAT(objects(run("processes")), ElementsAre("process 1"));
}

TEST_F(ProcessViews, HiddenFromAllButACpuIsFound) {
  link(without(3), without(3), without(3));
  const Findings all = run("processes");
  EXPECT_THAT(objects(all), ElementsAre("process 4"));
  EXPECT_THAT(all.findings[0].sources, ElementsAre("rq.curr"));
}

TEST_F(ProcessViews, HiddenFromAllButARunQueueIsFound) {
  kernel_.made().set_cpus({64, 4096});
  const auto head = [&](std::uint64_t cpu) {
    return *kernel_.symbol("runqueues") + kernel_.made().offset("rq", "cfs_tasks") + cpu;
  };
  guest_.put(tasks_[1] + at("thread_pid"), numbers_[tasks_[1]].raw());
  guest_.link_list(head(4096), {});
  guest_.link_list(head(64), std::vector{tasks_[1] + at("se.group_node")});
  expect_clean(run("processes"));
  link(without(1), without(1), without(1));
  const Findings all = run("processes");
  EXPECT_THAT(objects(all), ElementsAre("process 2"));
  EXPECT_THAT(all.findings[0].sources, ElementsAre("rq.cfs_tasks"));
  // A task that moved while the list was walked leads to another CPU's list.
  guest_.put(tasks_[1] + at("se.group_node"), head(4096).raw());
  EXPECT_THAT(objects(run("processes")), ElementsAre("process 2"));
  guest_.put(tasks_[1] + at("se.group_node"), (tasks_[1] + at("se.group_node")).raw());
  EXPECT_THAT(objects(run("processes")), ElementsAre("process 2"));
}

TEST_F(ProcessViews, HiddenFromAllButASlabIsFound) {
  const GuestVirt cache = guest_.allocate(4096), pages = guest_.allocate(1U << 20, 4096);
  kernel_.made().set_vmemmap(pages);
  kernel_.made().set_size("page", 64);
  guest_.put(*kernel_.symbol("task_struct_cachep"), cache.raw());
  const auto put_cache = [&](const char* member, std::uint32_t value) {
    kernel_.made().put(cache, "kmem_cache", member, value);
  };
  const GuestVirt task = tasks_[1];
  put_cache("size", 2048);
  put_cache("oo", 1);
  put_cache("min", 0);
  put_cache("red_left_pad", static_cast<std::uint32_t>(task.page_offset()));
  const std::uint64_t frame = (task - kernel_.page_offset()) / page_size;
  guest_.put(pages + frame * 64 + kernel_.made().offset("slab", "slab_cache"), cache.raw());
  guest_.put(task + at("thread_pid"), numbers_[task].raw());
  link(without(1), without(1), without(1));
  const Findings all = run("processes");
  EXPECT_THAT(objects(all), ElementsAre("process 2"));
  EXPECT_THAT(all.findings[0].sources, ElementsAre("task_struct_cachep"));
  guest_.put(task + at("thread_pid"), numbers_[tasks_[0]].raw());  // still its parent's copy
  expect_clean(run("processes"));
  put_cache("oo", 0xffff);
  put_cache("size", 512);
  expect_clean(run("processes"));
  put_cache("min", ~0U);
  EXPECT_THAT(run("processes").reports[0].note, HasSubstr("makes no sense"));
}

TEST_F(ProcessViews, WhatDiesIsNotFound) {
  guest_.put(tasks_[1] + at("exit_state"), std::uint32_t{0x10});  // EXIT_DEAD
  guest_.put(tasks_[2] + at("thread_pid"), std::uint64_t{0});
  link({tasks_[0], tasks_[3]}, tasks_, tasks_);
  expect_clean(run("processes"));
}

TEST_F(ProcessViews, ABrokenListIsTold) {
  guest_.put(tasks_[2] + at("tasks") + 8, init_.raw());
  const Findings all = run("processes");
  ASSERT_EQ(all.findings.size(), 1U);
  EXPECT_THAT(all.findings[0].what, HasSubstr("does not hold together"));
}

TEST_F(ProcessViews, ForgedTreesEnd) {
  guest_.put(node_ + 64 + 8 * 8, node_.raw() | 2);  // a node below itself
  expect_skipped(run("processes"), "table of PIDs");
}

// ---- handlers ----

TEST_F(Integrity, FunctionTracersOutsideCodeAreFound) {
  const GuestVirt one = guest_.allocate(256), end = *kernel_.symbol("ftrace_list_end");
  guest_.put(*kernel_.symbol("ftrace_ops_list"), one.raw());
  kernel_.made().put(one, "ftrace_ops", "next", end.raw());
  kernel_.made().put(one, "ftrace_ops", "func", text(0xc0).raw());
  expect_clean(run("ftrace-handlers"));
  kernel_.made().put(one, "ftrace_ops", "func", std::uint64_t{0xffffffffc0123000});
  EXPECT_EQ(run("ftrace-handlers").findings.size(), 1U);
  kernel_.made().put(one, "ftrace_ops", "next", one.raw());
  expect_skipped(run("ftrace-handlers"), "no end");
}

TEST_F(Integrity, KernelsWithoutKprobesSkipThem) { expect_skipped(run("kprobes"), "kprobe_table"); }

TEST_F(Integrity, HelpersThatAreUnusualAreHints) {
  const auto write = [&](const char* symbol, std::string_view text) {
    guest_.write(*kernel_.symbol(symbol), std::as_bytes(std::span(text)));
  };
  write("modprobe_path", std::string_view("/sbin/modprobe\0", 15));
  write("core_pattern", std::string_view("core\0", 5));
  write("poweroff_cmd", std::string_view("/sbin/poweroff\0", 15));
  expect_clean(run("usermode-helpers"));
  write("modprobe_path", std::string_view("/opt/x\0", 7));
  write("core_pattern", std::string_view("|/tmp/y\0", 8));
  const Findings all = run("usermode-helpers");
  EXPECT_THAT(objects(all), ElementsAre("modprobe_path", "core_pattern"));
  EXPECT_EQ(all.findings[0].sureness, Sureness::hint);
  EXPECT_THAT(all.findings[0].what, HasSubstr("/opt/x"));
  EXPECT_EQ(all.findings[1].sureness, Sureness::likely);
}

// ---- credentials ----

class Credentials : public Integrity {
 protected:
  Credentials() {
    kernel_.made().start_at("cred", 8);
    Process process;
    process.pid = 7;
    process.comm = "shell";
    process.task = guest_.allocate(1024);
    state_.processes.push_back(process);
    put("pid", std::uint32_t{7});
    put("mm", std::uint64_t{1});
    put("real_cred", cred_.raw());
    put("cred", cred_.raw());
    put_ids(1000);
    auto made =
        IntegrityChecker::create(kernel_, guest_.memory(), {.pause = std::chrono::milliseconds(0)});
    checker_ = *std::move(made);
  }
  template <typename T>
  void put(const char* member, T value) {
    kernel_.made().put(state_.processes[0].task, "task_struct", member, value);
  }
  void put_cred(const char* member, std::uint64_t value) {
    kernel_.made().put(cred_, "cred", member, value);
  }
  void put_ids(std::uint32_t id) {
    for (const char* member : {"uid", "euid", "suid", "fsuid"}) put_cred(member, id);
  }
  Findings look() {
    const std::vector<std::string> names{"credentials"};
    return *checker_->run(names, &state_);
  }

  State state_;
  GuestVirt cred_ = guest_.allocate(1024);
  std::unique_ptr<IntegrityChecker> checker_;
};

TEST_F(Credentials, OfTheKernelAreFound) {
  expect_clean(look());
  put("real_cred", kernel_.symbol("init_cred")->raw());
  const Findings all = look();
  EXPECT_THAT(objects(all), ElementsAre("process 7"));
  EXPECT_EQ(all.findings[0].sureness, Sureness::certain);
  put("flags", std::uint32_t{0x00200000});
  EXPECT_THAT(objects(look()), IsEmpty());
}

TEST_F(Credentials, BecomingRootIsFoundUntilItIsOver) {
  expect_clean(look());
  put_ids(0);
  for (int i = 0; i < 2; ++i) {
    const Findings all = look();
    ASSERT_THAT(objects(all), ElementsAre("process 7"));
    EXPECT_EQ(all.findings[0].sureness, Sureness::certain);
    EXPECT_THAT(all.findings[0].what, HasSubstr("was changed"));
  }
  put_ids(1000);
  expect_clean(look());
  put("real_cred", guest_.allocate(1024).raw());  // another cred, of zeros
  EXPECT_THAT(objects(look()), ElementsAre("process 7"));
}

TEST_F(Credentials, WaysThatTheKernelGivesAreNotFound) {
  expect_clean(look());
  put_ids(0);
  put("self_exec_id", std::uint64_t{1});  // a set-uid program
  expect_clean(look());
  put_ids(1000);
  put_cred("cap_permitted", 1ULL << 7);  // CAP_SETUID
  put("self_exec_id", std::uint64_t{2});
  expect_clean(look());
  put("real_cred", guest_.allocate(1024).raw());
  expect_clean(look());
  put("real_cred", cred_.raw());
  put_ids(1000);
  put_cred("suid", 0);
  put_cred("cap_permitted", 0);
  put("start_boottime", std::uint64_t{5});  // another process
  expect_clean(look());
  put_cred("euid", 0);
  EXPECT_THAT(look().findings,
              ::testing::Each(::testing::Field(&Finding::sureness, Sureness::hint)));
}

TEST_F(Credentials, MoreCapabilitiesAreFound) {
  expect_clean(look());
  put_cred("cap_permitted", 1);
  EXPECT_THAT(look().findings[0].what, HasSubstr("capabilities 0x1"));
  put_cred("user_ns", 0x1234);
  put("real_cred", cred_.raw());
  EXPECT_THAT(look().findings,
              ::testing::Each(::testing::Field(&Finding::sureness, Sureness::hint)));
}

TEST_F(Integrity, DeletedProgramsAndPacketSocketsAreHints) {
  State state;
  for (const char* exe : {"/bin/sh", "/tmp/x (deleted)", "/memfd:y (deleted)"}) {
    Process process;
    process.pid = static_cast<std::int32_t>(10 + state.processes.size());
    process.comm = "p";
    process.exe = exe;
    state.processes.push_back(process);
  }
  EXPECT_THAT(objects(run("deleted-executables", &state)), ElementsAre("process 11", "process 12"));
  for (const char* family : {"inet", "packet", "unix"}) {
    Socket socket;
    socket.family = family;
    socket.protocol = family == std::string_view("inet") ? "raw" : "unix";
    socket.pid = 10;
    socket.inode = 100 + state.sockets.size();
    state.sockets.push_back(socket);
  }
  EXPECT_THAT(objects(run("packet-sockets", &state)), ElementsAre("socket 100", "socket 101"));
}

TEST_F(Integrity, TablesOfFunctionsOutsideCodeAreFound) {
  const GuestVirt table = text(0x3000);
  kernel_.add("tcp4_seq_ops", table);
  kernel_.made().put(table, "seq_operations", "show", text(0xc0).raw());
  expect_clean(run("function-pointers"));
  kernel_.made().put(table, "seq_operations", "show", std::uint64_t{0xffffffffc0123000});
  EXPECT_THAT(objects(run("function-pointers")), ElementsAre("tcp4_seq_ops.show"));
}

// ---- places of tracers ----

class FtraceSites : public Integrity {
 protected:
  FtraceSites() {
    kernel_.made().no_longer_lack("ftrace_pages_start");
    kernel_.made().set_size("dyn_ftrace", 16);
    kernel_.made().set("dyn_ftrace", "ip", {0, 8, 0, 0, 1});
    kernel_.made().set_symbol("ftrace_caller", text(0x400));
    kernel_.made().set_symbol("ftrace_regs_caller", text(0x500));
    kernel_.made().set_symbol("__fentry__", text(0x600));
    guest_.put(*kernel_.symbol("ftrace_pages_start"), page_.raw());
    kernel_.made().put(page_, "ftrace_page", "next", std::uint64_t{0});
    kernel_.made().put(page_, "ftrace_page", "records", records_.raw());
    kernel_.made().put(page_, "ftrace_page", "index", std::uint32_t{2});
    guest_.put(records_, text(0xc0).raw());
    guest_.put(records_ + 16, text(0x100).raw());
    const GuestVirt end = *kernel_.symbol("ftrace_list_end");
    guest_.put(*kernel_.symbol("ftrace_ops_list"), tracer_.raw());
    kernel_.made().put(tracer_, "ftrace_ops", "next", end.raw());
    kernel_.made().put(tracer_, "ftrace_ops", "trampoline", trampoline_.raw());
    guest_.put(*kernel_.symbol("direct_functions"), std::uint64_t{0});
    guest_.link_list(*kernel_.symbol("bpf_kallsyms"), {});
    for (const std::uint64_t at : {0xc0U, 0x100U}) put_code(at, "\x0f\x1f\x44\x00\x00");
  }
  template <std::size_t size>
  void put_code(std::uint64_t at, const char (&code)[size]) {
    guest_.write(text(at), std::as_bytes(std::span(code, size - 1)));
  }
  void put_branch(std::uint64_t at, char opcode, GuestVirt target) {
    put_code(at, {opcode, 0});
    guest_.put(text(at) + 1, static_cast<std::uint32_t>(target - (text(at) + 5)));
  }

  GuestVirt page_ = guest_.allocate(4096), records_ = guest_.allocate(4096);
  GuestVirt tracer_ = guest_.allocate(1024), trampoline_{0xffffffffc0777000};
};

TEST_F(FtraceSites, OfNopsAndKnownTracersAreClean) {
  expect_clean(run("ftrace-sites"));
  for (const GuestVirt known : {text(0x400), text(0x500), text(0x600), trampoline_}) {
    put_branch(0xc0, '\xe8', known);
    expect_clean(run("ftrace-sites"));
  }
}

TEST_F(FtraceSites, ATracerThatIsSwitchedOffHasItsPlacesUntilTheyArePatched) {
  put_branch(0xc0, '\xe8', trampoline_);
  guest_.put(*kernel_.symbol("ftrace_ops_list"), kernel_.symbol("ftrace_list_end")->raw());
  guest_.put(*kernel_.symbol("removed_ops"), tracer_.raw());
  expect_clean(run("ftrace-sites"));
  guest_.put(*kernel_.symbol("removed_ops"), std::uint64_t{0});
  EXPECT_THAT(objects(run("ftrace-sites")), ElementsAre("site do_exit"));
}

TEST_F(FtraceSites, CallsOfOthersAreFound) {
  for (const GuestVirt other : {text(0x404), trampoline_ + 16, GuestVirt(0xffffffffc0123000)}) {
    put_branch(0xc0, '\xe8', other);
    const Findings all = run("ftrace-sites");
    EXPECT_THAT(objects(all), ElementsAre("site do_exit"));
    EXPECT_EQ(all.findings[0].sureness, Sureness::certain);
  }
  put_branch(0xc0, '\xe9', text(0x80));
  put_code(0x100, "\x50\x90\x90\x90\x90");
  EXPECT_THAT(objects(run("ftrace-sites")), ElementsAre("site do_exit", "site do_exit+0x40"));
  put_code(0x100, "\xcc\x90\x90\x90\x90");  // it is patched just now
  EXPECT_EQ(run("ftrace-sites").findings[1].sureness, Sureness::hint);
}

TEST_F(FtraceSites, WhatTheKernelChangesJustNowIsNoFinding) {
  put_branch(0xc0, '\xe8', text(0x404));
  for (const std::string_view lock : {"text_mutex", "static_call_mutex", "ftrace_lock"}) {
    const GuestVirt at = *kernel_.symbol(lock);
    kernel_.made().put(at, "mutex", "owner", std::uint64_t{0xffff888012345001});
    expect_skipped(run("ftrace-sites"), "was changing its code");
    kernel_.made().put(at, "mutex", "owner", std::uint64_t{0});
    EXPECT_THAT(objects(run("ftrace-sites")), ElementsAre("site do_exit"));
  }
}

TEST_F(FtraceSites, DirectCallsAreOfThatPlaceOnly) {
  const GuestVirt hash = guest_.allocate(4096), buckets = guest_.allocate(4096),
                  entry = guest_.allocate(4096), direct{0xffffffffc0999000};
  guest_.put(*kernel_.symbol("direct_functions"), hash.raw());
  kernel_.made().put(hash, "ftrace_hash", "size_bits", std::uint64_t{1});
  kernel_.made().put(hash, "ftrace_hash", "buckets", buckets.raw());
  guest_.put(buckets + 8, (entry + kernel_.made().offset("ftrace_func_entry", "hlist")).raw());
  kernel_.made().put(entry, "ftrace_func_entry", "ip", text(0x100).raw());
  kernel_.made().put(entry, "ftrace_func_entry", "direct", direct.raw());
  put_branch(0x100, '\xe8', direct);
  expect_clean(run("ftrace-sites"));
  put_branch(0xc0, '\xe8', direct);
  EXPECT_THAT(objects(run("ftrace-sites")), ElementsAre("site do_exit"));
  const GuestVirt link = entry + kernel_.made().offset("ftrace_func_entry", "hlist");
  guest_.put(link, link.raw());
  expect_skipped(run("ftrace-sites"), "direct_functions");
  kernel_.made().put(hash, "ftrace_hash", "size_bits", std::uint64_t{60});
  expect_skipped(run("ftrace-sites"), "direct_functions");
}

TEST_F(FtraceSites, AProbeThatNobodyArmedIsFound) {
  put_code(0xc0, "\x3e\x3e\x3e\x0f\x08");
  const Findings all = run("ftrace-sites");
  ASSERT_THAT(objects(all), ElementsAre("site do_exit"));
  EXPECT_THAT(all.findings[0].what, HasSubstr("no vmsight has armed"));
}

TEST_F(FtraceSites, ForgedRecordsEnd) {
  kernel_.made().put(page_, "ftrace_page", "next", page_.raw());
  expect_skipped(run("ftrace-sites"), "no end");
  kernel_.made().put(page_, "ftrace_page", "index", ~std::uint32_t{0});
  expect_skipped(run("ftrace-sites"), "no end");
}

// ---- vmsight's own traps ----

class OwnTraps : public FtraceSites {
 protected:
  OwnTraps() {
    kernel_.made().set_symbol("_etext", guest_.image(8 << 20));
    put_code(0xc0, "\x3e\x3e\x3e\x0f\x08");
    traps_ = {{text(0xc0), std::string(trap), "\x0f\x1f\x44"},
              {text(0x100), Trampoline::jump(text(0x100), text(0x800)), ""}};
    put_text(0x100, traps_[1].code);
    put_text(0x800, Trampoline::code(text(0x800), text(0x100)));
    tick();
    auto made = IntegrityChecker::create(
        kernel_, guest_.memory(),
        {.own_traps = [this] { return traps_; }, .pause = std::chrono::milliseconds(0)});
    checker_ = *std::move(made);
  }
  void tick() { guest_.put(*kernel_.symbol("jiffies_64"), ++ticks_); }
  void put_text(std::uint64_t at, std::string_view code) {
    guest_.write(text(at), std::as_bytes(std::span(code)));
  }
  Findings look() {
    const std::vector<std::string> names{"own-traps"};
    return *checker_->run(names, nullptr);
  }
  static constexpr std::string_view trap{"\x3e\x3e\x3e\x0f\x08", 5};
  std::vector<OwnTrap> traps_;
  std::uint64_t ticks_ = 1000;
  std::unique_ptr<IntegrityChecker> checker_;
};

TEST_F(OwnTraps, ThatAreThereAreClean) { expect_clean(look()); }

TEST_F(OwnTraps, RemovedAndChangedOnesAreFound) {
  expect_clean(look());
  tick();
  put_text(0xc0, "\x0f\x1f\x44");
  EXPECT_THAT(objects(look()), ElementsAre("probe do_exit"));
  put_text(0xc0, trap);
  expect_clean(look());
  tick();
  put_text(0x803, "\x90");
  EXPECT_THAT(objects(look()), ElementsAre("probe do_exit+0x40"));
}

TEST_F(OwnTraps, AGuestWhoseClockStandsHasRemovedNothing) {
  expect_clean(look());
  put_text(0xc0, "\x90");
  expect_skipped(look(), "reboots");
}

TEST_F(OwnTraps, CopiesAreFoundAlsoAcrossPages) {
  put_text(0x2000 - 2, trap);
  put_text(0x5000, Trampoline::code(text(0x5000), text(0x6000)));
  const Findings all = look();
  EXPECT_EQ(objects(all),
            (std::vector<std::string>{fmt::format("copy {:#x}", text(0x2000 - 2).raw()),
                                      fmt::format("copy {:#x}", text(0x5000).raw())}));
  // One that an earlier probe left leads back to its function.
  put_text(0x2000 - 2, std::string(5, '\x90'));
  put_text(0x5000, Trampoline::code(text(0x5000), text(0xc0)));
  expect_clean(look());
}

TEST_F(OwnTraps, AreNoFindingsOfOtherChecks) {
  const std::vector<std::string> names{"ftrace-sites"};
  const Findings all = *checker_->run(names, nullptr);
  expect_clean(all);
  EXPECT_THAT(all.reports[0].note, HasSubstr("2 sites"));
}

// ---- text ----

class KernelTextCheck : public Integrity {
 protected:
  KernelTextCheck()
      : folder_(std::filesystem::temp_directory_path() /
                fmt::format("vmsight-test-text-{}", ::getpid())) {
    options_.cache_directory = folder_.string();
  }
  ~KernelTextCheck() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
  IntegrityOptions options_;
};

TEST_F(KernelTextCheck, TakesABaselineAndTellsWhatChanged) {
  EXPECT_THAT(run("kernel-text", nullptr, options_).reports[0].note, HasSubstr("taken now"));
  expect_clean(run("kernel-text", nullptr, options_));
  guest_.put(text(0xc7), std::uint8_t{0xcc});
  const Findings all = run("kernel-text", nullptr, options_);
  EXPECT_THAT(objects(all), ElementsAre("text do_exit+0x7"));
  EXPECT_EQ(all.findings[0].sureness, Sureness::certain);
  guest_.put(text(0xc7), std::uint8_t{0});
  expect_clean(run("kernel-text", nullptr, options_));
}

TEST_F(KernelTextCheck, BaselinesThatAreDamagedOrOfOthersAreNotUsed) {
  options_.baseline_file = (folder_ / "file").string();
  run("kernel-text", nullptr, options_);
  expect_clean(run("kernel-text", nullptr, options_));
  std::filesystem::permissions(options_.baseline_file, std::filesystem::perms::others_write,
                               std::filesystem::perm_options::add);
  expect_skipped(run("kernel-text", nullptr, options_), "others may write");
  std::filesystem::permissions(options_.baseline_file, std::filesystem::perms::others_write,
                               std::filesystem::perm_options::remove);
  std::filesystem::resize_file(options_.baseline_file, 90);
  expect_skipped(run("kernel-text", nullptr, options_), "damaged");
}

TEST_F(KernelTextCheck, AKernelThatWasMovedIsTheSame) {
  TextBaseline before{.build_id = "1", .variant = 0, .base = GuestVirt(0x81000000), .text = {}};
  before.text.resize(256);
  TextBaseline now = before;
  now.base = before.base + 0x1a200000;
  const auto put = [](TextBaseline& to, std::size_t at, std::uint64_t value, std::size_t size) {
    std::memcpy(to.text.data() + at, &value, size);
  };
  put(before, 17, 0x81234567, 4);
  put(now, 17, 0x81234567 + 0x1a200000, 4);
  put(before, 40, 0xffffffff81234567, 8);
  put(now, 40, 0xffffffff81234567 + 0x1a200000, 8);
  put(before, 77, 0x7f000000, 4);  // of per-CPU data: moved the other way
  put(now, 77, 0x7f000000 - 0x1a200000, 4);
  EXPECT_TRUE(compare_text(before, now, 10).empty());
  put(now, 100, 0x90, 1);
  const auto changes = compare_text(before, now, 10);
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_EQ(changes[0].offset, 100U);
}

}  // namespace
}  // namespace vmsight::detect_integrity_test
