// Checks of integrity that look at code: who owns it, whether it changed, and who hooks it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "detect/integrity/module_baseline.h"
#include "detect/integrity/runtime_constants.h"
#include "unit/detect_checked_kernel.h"

namespace vmsight::detect_code_checks_test {
namespace {

using test::CheckedKernel;
using test::MapSize;
using test::mib;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace pte = test::pte;

// ---- executable pages ----

class ExecutablePages : public test::Integrity {
 protected:
  ExecutablePages() {
    kernel_.made().set_symbol("_etext", guest_.image(8 * mib));
    for (const char* lacking : {"execmem_cache", "kexec_image", "kexec_crash_image",
                                "real_mode_header", "its_array", "module.its_page_array"})
      kernel_.made().lack(lacking);
    for (const char* list : {"bpf_kallsyms", "pack_list", "ftrace_ops_trampoline_list"})
      guest_.link_list(*kernel_.symbol(list), {});
    for (const char* cache : {"kprobe_insn_slots", "kprobe_optinsn_slots"})
      guest_.link_list(*kernel_.symbol(cache) + pages_of_cache(), {});
    guest_.put(*kernel_.symbol("ftrace_ops_list"), kernel_.symbol("ftrace_list_end")->raw());
    guest_.put(*kernel_.symbol("vmap_area_root"), std::uint64_t{0});
  }
  std::uint32_t pages_of_cache() { return kernel_.made().offset("kprobe_insn_cache", "pages"); }
  void map_code(std::uint64_t at, unsigned pages, std::uint64_t flags = 0) {
    for (unsigned i = 0; i < pages; ++i) {
      guest_.map(GuestVirt(at + i * page_size), guest_.allocate_phys(page_size, page_size),
                 MapSize::page_4k, pte::present | flags);
    }
  }
  static constexpr std::uint64_t place = 0xffffffffc0200000;
};

TEST_F(ExecutablePages, OfTheKernelAloneAreClean) {
  map_code(place, 4, pte::no_execute);
  expect_clean(run("executable-pages"));
}

TEST_F(ExecutablePages, ThatNobodyOwnsAreFoundAsRuns) {
  map_code(place, 3);
  map_code(place + 16 * page_size, 1);
  map_code(0xffffc90000123000, 1);
  const Findings all = run("executable-pages");
  EXPECT_THAT(objects(all),
              ElementsAre("pages gva:0xffffc90000123000", "pages gva:0xffffffffc0200000",
                          "pages gva:0xffffffffc0210000"));
  EXPECT_THAT(all.findings[1].what, HasSubstr("3 executable pages"));
}

TEST_F(ExecutablePages, WhatAModuleWasStartedFromIsOnItsWay) {
  map_code(place, 3);
  const GuestVirt list = *kernel_.symbol("init_free_list");
  guest_.put(list, std::uint64_t{0xffff888012345000});  // nobody has begun
  expect_skipped(run("executable-pages"), "was changing its code");
  guest_.put(list, std::uint64_t{0});
  const auto offset = [&](std::string_view type, std::string_view member) {
    return kernel_.made().offset(type, member);
  };
  const GuestVirt kthreadd = guest_.allocate(page_size), task = guest_.allocate(page_size),
                  kthread = guest_.allocate(page_size), worker = guest_.allocate(page_size);
  guest_.put(*kernel_.symbol("kthreadd_task"), kthreadd.raw());
  guest_.link_list(kthreadd + offset("task_struct", "children"),
                   std::vector{task + offset("task_struct", "sibling")});
  kernel_.made().put(task, "task_struct", "flags", std::uint64_t{0x200020});
  kernel_.made().put(task, "task_struct", "worker_private", kthread.raw());
  kernel_.made().put(kthread, "kthread", "data", worker.raw());
  kernel_.made().put(worker, "worker", "current_func", kernel_.symbol("do_free_init")->raw());
  expect_skipped(run("executable-pages"), "was changing its code");  // a worker is about to
  kernel_.made().put(worker, "worker", "current_func", std::uint64_t{0});
  EXPECT_EQ(run("executable-pages").findings.size(), 1U);
  guest_.put(task + offset("task_struct", "sibling"),
             (task + offset("task_struct", "sibling")).raw());  // in circles: nobody is seen
  EXPECT_EQ(run("executable-pages").findings.size(), 1U);
}

TEST_F(ExecutablePages, InTheDirectMapAreFound) {
  const GuestVirt at = guest_.allocate(page_size, page_size);
  const auto entry = guest_.entry_of(guest_.root(), at);
  auto value = std::uint64_t{0};
  ASSERT_TRUE(read_phys(guest_.memory(), entry.at, std::as_writable_bytes(std::span(&value, 1))));
  guest_.put(guest_.direct(entry.at), value & ~pte::no_execute);
  EXPECT_EQ(run("executable-pages").findings.size(), 1U);
}

TEST_F(ExecutablePages, OfKprobesTracersAndBpfAreOwned) {
  const GuestVirt slots = guest_.allocate(page_size), symbol = guest_.allocate(page_size),
                  tracer = guest_.allocate(page_size);
  const auto at = [](unsigned page) { return place + page * page_size; };
  map_code(at(0), 1);
  guest_.link_list(*kernel_.symbol("kprobe_insn_slots") + pages_of_cache(),
                   std::vector{slots + kernel_.made().offset("kprobe_insn_page", "list")});
  kernel_.made().put(slots, "kprobe_insn_page", "insns", at(0));
  map_code(at(4), 3);  // what BPF asked for is larger than what it tells
  guest_.link_list(*kernel_.symbol("bpf_kallsyms"),
                   std::vector{symbol + kernel_.made().offset("bpf_ksym", "lnode")});
  kernel_.made().put(symbol, "bpf_ksym", "start", at(4) + 0x40);
  kernel_.made().put(symbol, "bpf_ksym", "end", at(4) + 0x80);
  map_code(at(12), 1);
  guest_.put(*kernel_.symbol("ftrace_ops_list"), tracer.raw());
  kernel_.made().put(tracer, "ftrace_ops", "next", kernel_.symbol("ftrace_list_end")->raw());
  kernel_.made().put(tracer, "ftrace_ops", "trampoline", at(12));
  kernel_.made().put(tracer, "ftrace_ops", "trampoline_size", std::uint64_t{0x100});
  expect_clean(run("executable-pages"));
  map_code(at(1), 1);  // beside a slot, which is one page
  EXPECT_EQ(run("executable-pages").findings.size(), 1U);
}

TEST_F(ExecutablePages, AProgramOfBpfIsOwnedThoughNoListHasIt) {
  const GuestVirt area = guest_.allocate(page_size), vm = guest_.allocate(page_size),
                  code_area = guest_.allocate(page_size), program{0xffffc90000400000};
  const auto offset = [&](const char* type, const char* member) {
    return kernel_.made().offset(type, member);
  };
  map_code(place, 2);
  map_code(program.raw(), 1, pte::no_execute | pte::writable);
  guest_.put(program + offset("bpf_prog", "bpf_func"), place + 0x44);
  const auto put_area = [&](GuestVirt at, std::uint64_t start, std::uint64_t end) {
    kernel_.made().put(at, "vmap_area", "va_start", start);
    kernel_.made().put(at, "vmap_area", "va_end", end);
    kernel_.made().put(at, "vmap_area", "vm", vm.raw());
  };
  put_area(area, program.raw(), program.raw() + 2 * page_size);
  put_area(code_area, place, place + 3 * page_size);
  kernel_.made().put(vm, "vm_struct", "caller",
                     kernel_.symbol("bpf_prog_alloc_no_stats")->raw() + 0x31);
  const std::uint32_t node = offset("vmap_area", "rb_node");
  guest_.put(*kernel_.symbol("vmap_area_root"), (area + node).raw());
  guest_.put(area + node + offset("rb_node", "rb_left"), (code_area + node).raw());
  expect_clean(run("executable-pages"));
  guest_.put(program + offset("bpf_prog", "bpf_func"), std::uint64_t{0});
  EXPECT_THAT(run("executable-pages").findings[0].what, HasSubstr("2 executable pages"));
  guest_.put(code_area + node + offset("rb_node", "rb_left"), (area + node).raw());  // a circle
  EXPECT_EQ(run("executable-pages").findings.size(), 1U);
}

TEST_F(ExecutablePages, ForgedTablesAndListsEnd) {
  // A table of the highest level that is every table below itself, too.
  for (unsigned i = 256; i < 512; ++i) {
    const GuestVirt entry = guest_.direct(guest_.root()) + i * 8;
    std::uint64_t now = 0;
    const auto bytes = std::as_writable_bytes(std::span(&now, 1));
    ASSERT_TRUE(read_phys(guest_.memory(), guest_.root() + i * 8, bytes));
    if (now == 0) guest_.put(entry, guest_.root().raw() | pte::present | pte::writable);
  }
  const Findings all = run("executable-pages");
  ASSERT_EQ(all.reports.size(), 1U);
  EXPECT_THAT(all.reports[0].note, HasSubstr("too many"));
  const GuestVirt pack = guest_.allocate(page_size);
  const GuestVirt link = pack + kernel_.made().offset("bpf_prog_pack", "list");
  guest_.put(*kernel_.symbol("pack_list"), link.raw());
  guest_.put(link, link.raw());
  expect_skipped(run("executable-pages"), "pack_list");
}

TEST_F(ExecutablePages, ForgedListsOfOwnersEnd) {
  const struct {
    GuestVirt head;
    const char* told;
  } lists[] = {
      {*kernel_.symbol("bpf_kallsyms"), "bpf_kallsyms"},
      {*kernel_.symbol("kprobe_insn_slots") + pages_of_cache(), "kprobe_insn_slots"},
      {*kernel_.symbol("ftrace_ops_trampoline_list"), "ftrace_ops_trampoline_list"},
  };
  for (const auto& [head, told] : lists) {
    const GuestVirt node = guest_.allocate(page_size) + 1024;
    guest_.put(head, node.raw());
    guest_.put(node, node.raw());  // never back to its head
    expect_skipped(run("executable-pages"), told);
    guest_.put(head, std::uint64_t{0xffffffffdead0000});
    expect_skipped(run("executable-pages"), told);
    guest_.link_list(head, {});
  }
  expect_clean(run("executable-pages"));
}

TEST_F(ExecutablePages, ForgedArraysOfThunksEnd) {
  kernel_.made().no_longer_lack("its_array");
  const GuestVirt array = *kernel_.symbol("its_pages"), pages = guest_.allocate(page_size);
  map_code(place, 1);
  guest_.put(pages, place);
  kernel_.made().put(array, "its_array", "pages", pages.raw());
  kernel_.made().put(array, "its_array", "num", std::uint32_t{1});
  expect_clean(run("executable-pages"));
  kernel_.made().put(array, "its_array", "num", ~std::uint32_t{0});
  expect_clean(run("executable-pages"));  // so many are read, and no more
  kernel_.made().put(array, "its_array", "pages", std::uint64_t{0xffffffffdead0000});
  expect_skipped(run("executable-pages"), "its_pages");
}

// ---- code of modules ----

class ModuleText : public test::Integrity {
 protected:
  ModuleText() : folder_(std::filesystem::temp_directory_path() / name()) {
    std::filesystem::remove_all(folder_);
    kernel_.made().start_at("module", 512);
    kernel_.made().set("module", "list", {8, 16, 0, 0, 1});
    kernel_.made().set("module", "state", {0, 4, 0, 0, 1});
    kernel_.made().set("module", "name", {32, 56, 0, 0, 1});
    kernel_.made().set("module", "core_layout.base", {128, 8, 0, 0, 1});
    kernel_.made().set("module", "core_layout.size", {136, 4, 0, 0, 1});
    kernel_.made().set("module", "core_layout.text_size", {140, 4, 0, 0, 1});
    kernel_.made().set("module", "jump_entries", {160, 8, 0, 0, 1});
    kernel_.made().set("module", "num_jump_entries", {168, 4, 0, 0, 1});
    for (const char* lacking : {"module.init_layout.base", "module.static_call_sites"})
      kernel_.made().lack(lacking);
    code_ = GuestVirt(0xffffffffc0300000);
    guest_.map_scattered(code_, 2 * page_size);
    module_ = load("victim", code_);
    guest_.link_list(*kernel_.symbol("modules"), std::vector{module_ + 8});
  }
  ~ModuleText() override { std::filesystem::remove_all(folder_); }
  static std::string name() { return fmt::format("vmsight-module-text-{}", ::getpid()); }

  GuestVirt load(std::string_view name, GuestVirt code) {
    const GuestVirt module = guest_.allocate(2048);
    guest_.write(module + 32, std::as_bytes(std::span(name)));
    guest_.put(module + 128, code.raw());
    guest_.put(module + 136, std::uint32_t{2 * page_size});
    guest_.put(module + 140, std::uint32_t{page_size});
    const GuestVirt folder = guest_.allocate(1024);
    kernel_.made().put(module, "module", "mkobj.kobj.sd", folder.raw());
    kernel_.made().put(folder, "kernfs_node", "id", next_id_++);
    return module;
  }
  Findings look() { return run("module-text", nullptr, {.cache_directory = folder_.string()}); }

  std::filesystem::path folder_;
  GuestVirt code_, module_;
  std::uint64_t next_id_ = 7;
};

TEST_F(ModuleText, ChangedCodeIsFoundAndGoneWhenPutBack) {
  EXPECT_THAT(look().reports[0].note, HasSubstr("1 module was taken"));
  expect_clean(look());
  guest_.put(code_ + 0x20, std::uint16_t{0x1234});
  guest_.put(code_ + page_size + 8, std::uint16_t{0x1234});  // data
  const Findings all = look();
  EXPECT_THAT(objects(all), ElementsAre("text 0x20 [victim]"));
  EXPECT_EQ(all.findings[0].sureness, Sureness::certain);
  guest_.put(code_ + 0x20, std::uint16_t{0});
  expect_clean(look());
}

TEST_F(ModuleText, ItsOwnJumpLabelsExplainChanges) {
  look();
  const GuestVirt entry = guest_.allocate(64);
  guest_.put(module_ + 160, entry.raw());
  guest_.put(module_ + 168, std::uint32_t{1});
  kernel_.made().set("module", "jump_entries", {160, 8, 0, 0, 1});
  // Distances have 32 bits: the table lies near the code.
  const GuestVirt table = code_ + page_size;
  guest_.put(module_ + 160, table.raw());
  guest_.put(table, static_cast<std::uint32_t>(code_ + 0x40 - table));
  guest_.put(code_ + 0x40, std::uint32_t{0x12345678});
  expect_clean(look());
  guest_.put(code_ + 0x45, std::uint8_t{1});
  EXPECT_THAT(objects(look()), ElementsAre("text 0x45 [victim]"));
  guest_.put(module_ + 168, ~std::uint32_t{0});
  EXPECT_THAT(look().reports[0].note, HasSubstr("victim"));
}

TEST_F(ModuleText, OneThatIsLoadedAnewIsAnother) {
  look();
  guest_.put(code_ + 0x20, std::uint16_t{0x1234});
  const GuestVirt again = load("victim", code_);
  guest_.link_list(*kernel_.symbol("modules"), std::vector{again + 8});
  expect_clean(look());
  guest_.put(again, std::uint32_t{1});  // MODULE_STATE_COMING
  EXPECT_THAT(objects(look()), IsEmpty());
}

TEST_F(ModuleText, AnotherBootHasABaselineOfItsOwn) {
  look();
  guest_.put(code_ + 0x20, std::uint16_t{0x1234});
  kernel_.made().put(*kernel_.symbol("init_task"), "task_struct", "stack_canary",
                     std::uint64_t{0xabcdef});
  EXPECT_THAT(look().reports[0].note, HasSubstr("was taken now"));
}

TEST_F(ModuleText, ForgedSizesAreRefused) {
  guest_.put(module_ + 140, std::uint32_t{1U << 29});
  expect_skipped(look(), "more code");
}

TEST(ModuleBaseline, IsReadAsItWasWritten) {
  const std::vector<ModuleCode> all = {
      {"one", 5, GuestVirt(0xffffffffc0000000), std::vector<std::byte>(3, std::byte{1})},
      {"two", 6, GuestVirt(0xffffffffc0010000), {}}};
  const auto packed = pack_modules(all);
  const auto read = unpack_modules(packed);
  ASSERT_TRUE(read);
  ASSERT_EQ(read->size(), 2U);
  EXPECT_TRUE(read->at(0).is_same_load(all[0]));
  EXPECT_EQ(read->at(0).code, all[0].code);
  EXPECT_FALSE(unpack_modules(std::span(packed).first(packed.size() - 1)));
  EXPECT_FALSE(unpack_modules({}));
}

// ---- security hooks ----

class LsmHooks : public test::Integrity {
 protected:
  LsmHooks() : list_(*kernel_.symbol("security_hook_heads")), hook_(guest_.allocate(256)) {
    kernel_.made().set_size("security_hook_heads", 32);
    guest_.put(list_ + 8, (hook_ + kernel_.made().offset("security_hook_list", "list")).raw());
    kernel_.made().put(hook_, "security_hook_list", "hook", text(0xc0).raw());
  }
  GuestVirt list_, hook_;
};

TEST_F(LsmHooks, ThatCallTheKernelAreClean) { expect_clean(run("lsm-hooks")); }

TEST_F(LsmHooks, ThatCallOthersAreFound) {
  kernel_.made().put(hook_, "security_hook_list", "hook", std::uint64_t{0xffffffffc0123000});
  const Findings all = run("lsm-hooks");
  EXPECT_THAT(objects(all), ElementsAre("hook 0x8"));
  EXPECT_EQ(all.findings[0].sureness, Sureness::certain);
}

TEST_F(LsmHooks, ForgedListsEnd) {
  const GuestVirt link = hook_ + kernel_.made().offset("security_hook_list", "list");
  guest_.put(link, link.raw());
  expect_skipped(run("lsm-hooks"), "security_hook_heads");
  kernel_.made().set_size("security_hook_heads", 1U << 30);
  expect_skipped(run("lsm-hooks"), "size");
}

class LsmSlots : public test::Integrity {
 protected:
  LsmSlots() : slots_(*kernel_.symbol("static_calls_table")) {
    kernel_.made().lack("security_hook_heads");
    kernel_.made().set_size("lsm_static_calls_table", 256);
    kernel_.made().set_size("lsm_static_call", 64);
    const GuestVirt slot = slots_ + 64;
    kernel_.made().put(slot, "lsm_static_call", "hl", hook_.raw());
    kernel_.made().put(slot, "lsm_static_call", "key", key_.raw());
    kernel_.made().put(slot, "lsm_static_call", "trampoline", text(0x700).raw());
    kernel_.made().put(hook_, "security_hook_list", "hook", text(0xc0).raw());
    kernel_.made().put(key_, "static_call_key", "func", text(0xc0).raw());
    put_jump(text(0xc0));
  }
  void put_jump(GuestVirt target) {
    guest_.put(text(0x700), std::uint8_t{0xe9});
    guest_.put(text(0x701), static_cast<std::uint32_t>(target - text(0x705)));
  }
  GuestVirt slots_, hook_ = guest_.allocate(256), key_ = guest_.allocate(256);
  static constexpr std::uint64_t elsewhere = 0xffffffffc0123000;
};

TEST_F(LsmSlots, ThatCallTheKernelAreClean) { expect_clean(run("lsm-hooks")); }

TEST_F(LsmSlots, EachOfTheirPointersIsLookedAt) {
  kernel_.made().put(hook_, "security_hook_list", "hook", elsewhere);
  EXPECT_THAT(objects(run("lsm-hooks")), ElementsAre("hook 0x40"));
  kernel_.made().put(hook_, "security_hook_list", "hook", text(0xc0).raw());
  kernel_.made().put(key_, "static_call_key", "func", elsewhere);
  EXPECT_THAT(run("lsm-hooks").findings[0].what, HasSubstr("static call"));
  kernel_.made().put(key_, "static_call_key", "func", text(0xc0).raw());
  put_jump(GuestVirt(elsewhere));
  EXPECT_THAT(run("lsm-hooks").findings[0].what, HasSubstr("jumps to"));
}

TEST_F(LsmSlots, ForgedSizesAreRefused) {
  kernel_.made().set_size("lsm_static_calls_table", 1U << 30);
  expect_skipped(run("lsm-hooks"), "size");
}

// ---- constants of a boot ----

TEST(RuntimeConstants, AreAddressesOfDataThatChangeAlike) {
  test::SyntheticGuest guest({.direct_map_executes = false});
  test::MadeUpKernel kernel(guest);
  Reader reader(guest.memory(), kernel.space());
  RuntimeConstants constants(kernel, reader);
  const auto code = [](std::initializer_list<std::uint64_t> values) {
    std::vector<std::byte> text;
    for (const std::uint64_t value : values) {
      text.insert(text.end(), {std::byte{0x49}, std::byte{0xbb}});
      const auto bytes = std::as_bytes(std::span(&value, 1));
      text.insert(text.end(), bytes.begin(), bytes.end());
    }
    return text;
  };
  const std::uint64_t was = 0xffff9d8012345600, is = guest.allocate(64).raw(),
                      other = guest.allocate(64).raw(), code_at = guest.image(0x40).raw();
  const auto end_of = [&](std::uint64_t now, std::size_t at) {
    return constants.end_of(code({was, was}), code({is, now}), at);
  };
  EXPECT_EQ(end_of(is, 4), 10U);
  EXPECT_EQ(end_of(is, 12), 20U);
  EXPECT_FALSE(end_of(other, 12));  // not as the one before
  EXPECT_FALSE(end_of(code_at, 12));
  EXPECT_FALSE(end_of(0x1234, 12));
  EXPECT_FALSE(end_of(is, 1));  // the opcode itself
}

// ---- jump labels and static calls ----

class PatchSites : public test::Integrity {
 protected:
  PatchSites() {
    for (const char* table : {"__start___jump_table", "__start_static_call_sites"})
      kernel_.made().no_longer_lack(table);
    const auto put_table = [&](const char* first, const char* last, std::uint64_t at,
                               std::uint64_t size) {
      kernel_.made().set_symbol(first, text(at));
      kernel_.made().set_symbol(last, text(at + size));
    };
    put_table("__start___jump_table", "__stop___jump_table", 0x1000, 16);
    put_table("__start_static_call_sites", "__stop_static_call_sites", 0x1100, 8);
    guest_.link_list(*kernel_.symbol("bpf_kallsyms"), {});
    put_distance(0x1000, text(0x100));   // the label's code
    put_distance(0x1004, text(0x180));   // and where it jumps to
    put_distance(0x1100, text(0x200));   // the call's code
    put_distance(0x1104, text(0x1203));  // and its key, with both flags
    kernel_.made().put(text(0x1200), "static_call_key", "func", text(0xc0).raw());
    put_code(0x100, "\x0f\x1f\x44\x00\x00");
    put_branch(0x200, '\xe8', text(0xc0));
  }
  void put_distance(std::uint64_t field, GuestVirt to) {
    guest_.put(text(field), static_cast<std::uint32_t>(to - text(field)));
  }
  void put_code(std::uint64_t at, std::string_view code) {
    guest_.write(text(at), std::as_bytes(std::span(code)));
  }
  template <std::size_t size>
  void put_code(std::uint64_t at, const char (&code)[size]) {
    put_code(at, std::string_view(code, size - 1));
  }
  void put_branch(std::uint64_t at, char opcode, GuestVirt target) {
    guest_.put(text(at), opcode);
    guest_.put(text(at + 1), static_cast<std::uint32_t>(target - text(at + 5)));
  }
};

TEST_F(PatchSites, AsTheTablesSayAreClean) {
  expect_clean(run("patch-sites"));
  put_branch(0x100, '\xe9', text(0x180));
  put_code(0x200, "\x67\x48\x0f\xb9\x3a");
  expect_clean(run("patch-sites"));
  put_code(0x100, "\xeb\x7e");  // a short jump
  put_code(0x200, "\x0f\x84");
  guest_.put(text(0x202), static_cast<std::uint32_t>(text(0xc0) - text(0x206)));
  expect_clean(run("patch-sites"));
}

TEST_F(PatchSites, OtherTargetsAreFound) {
  put_branch(0x100, '\xe9', text(0x184));
  put_branch(0x200, '\xe8', GuestVirt(0xffffffffc0123000));
  const Findings all = run("patch-sites");
  EXPECT_THAT(objects(all), ElementsAre("site do_exit+0x40", "site do_exit+0x140"));
  EXPECT_EQ(all.findings[0].sureness, Sureness::likely);
  EXPECT_EQ(all.findings[1].sureness, Sureness::certain);
  put_branch(0x100, '\xe8', text(0x180));  // a label never calls
  put_code(0x200, "\xcc");
  EXPECT_EQ(run("patch-sites").findings[1].sureness, Sureness::hint);
}

TEST_F(PatchSites, TrampolinesLeadToKnownCode) {
  CheckedKernel kernel(guest_);
  kernel.add("_stext", text());
  kernel.add("__SCT__one", text(0x300));
  kernel.add("_etext", text(0x2000));
  for (const char* lacking : {"__start___jump_table", "__start_static_call_sites", "module.mem"})
    kernel.made().lack(lacking);
  guest_.link_list(*kernel.symbol("modules"), {});
  guest_.link_list(*kernel.symbol("bpf_kallsyms"), {});
  const auto look = [&] {
    auto checker =
        IntegrityChecker::create(kernel, guest_.memory(), {.pause = std::chrono::milliseconds(0)});
    return *(*checker)->run(std::vector<std::string>{"patch-sites"}, nullptr);
  };
  for (const char opcode : {'\xe9', '\xc3'}) {
    put_branch(0x300, opcode, text(0xc0));
    expect_clean(look());
  }
  put_branch(0x300, '\xe9', GuestVirt(0xffffffffc0123000));
  EXPECT_THAT(objects(look()), ElementsAre("site __SCT__one"));
}

TEST_F(PatchSites, ForgedTablesEnd) {
  kernel_.made().set_symbol("__stop___jump_table", text(1ULL << 30));
  expect_skipped(run("patch-sites"), "__start___jump_table");
}

}  // namespace
}  // namespace vmsight::detect_code_checks_test
