#include "kernel/module_symbols.h"

#include <gtest/gtest.h>

#include "support/btf_builder.h"
#include "support/faulty_memory.h"
#include "support/typed_kernel.h"

namespace vmsight::kernel_modules_test {
namespace {

using test::BtfBuilder;
using test::SyntheticGuest;
using test::TypedKernel;

/// struct module as this test's kernel has it; offsets in bytes.
constexpr std::uint32_t list_at = 8, name_at = 24, kallsyms_at = 80, mem_at = 88;
constexpr std::uint32_t syms_at = 136, num_syms_at = 144, state_at = 0, module_size = 160;

std::unique_ptr<Btf> types() {
  BtfBuilder b;
  const TypeId u32 = b.integer("unsigned int", 4), u64 = b.integer("unsigned long", 8);
  const TypeId character = b.integer("char", 1), pointer = b.pointer(0);
  const TypeId list = b.structure("list_head", 16, {{"next", pointer, 0}, {"prev", pointer, 64}});
  const TypeId memory = b.structure("module_memory", 16, {{"base", pointer, 0}, {"size", u32, 64}});
  b.structure("mod_kallsyms", 32,
              {{"symtab", pointer, 0},
               {"num_symtab", u32, 64},
               {"strtab", pointer, 128},
               {"typetab", pointer, 192}});
  b.structure("kernel_symbol", 12,
              {{"value_offset", u32, 0}, {"name_offset", u32, 32}, {"namespace_offset", u32, 64}});
  b.structure("module", module_size,
              {{"state", u32, state_at * 8},
               {"list", list, list_at * 8},
               {"name", b.array(character, 56), name_at * 8},
               {"kallsyms", pointer, kallsyms_at * 8},
               {"mem", b.array(memory, 3), mem_at * 8},
               {"syms", pointer, syms_at * 8},
               {"num_syms", u32, num_syms_at * 8}});
  b.enumeration("module_state", {{"MODULE_STATE_LIVE", 0}, {"MODULE_STATE_UNFORMED", 3}}, false);
  const TypeId btf = b.structure(
      "btf", 128,
      {{"data", pointer, 0}, {"data_size", u32, 64}, {"name", b.array(character, 56), 128}});
  b.structure("btf_module", 32,
              {{"list", list, 0}, {"module", pointer, 128}, {"btf", b.pointer(btf), 192}});
  static_cast<void>(u64);
  return *Btf::parse(b.blob());
}

struct ElfSymbol {
  std::uint32_t name;
  std::uint8_t info = 0, other = 0;
  std::uint16_t section = 1;
  std::uint64_t value, size = 0;
};

class ModulesTest : public testing::Test {
 protected:
  ModulesTest() {
    kernel.add_symbol("modules", guest.image(0x1000));
    kernel.add_symbol("btf_modules", guest.image(0x2000));
    guest.link_list(guest.image(0x1000), {});
    guest.link_list(guest.image(0x2000), {});
  }

  /// A module at `start` with symbols "first" (exported) and "second".
  GuestVirt add_module(std::string_view name, GuestVirt start) {
    const GuestVirt module = guest.allocate(module_size);
    guest.write(module + name_at, std::as_bytes(std::span(name)));
    const ElfSymbol symbols[] = {{0, 0, 0, 0, 0},
                                 {1, 0, 0, 1, start.raw() + 0x10},
                                 {7, 0, 0, 1, start.raw() + 0x20},
                                 {0, 0, 0, 1, start.raw()}};
    const GuestVirt kallsyms = guest.allocate(32);
    guest.put_pointer(kallsyms, guest.place(std::as_bytes(std::span(symbols))));
    guest.put(kallsyms + 8, std::uint32_t{4});
    guest.put_pointer(kallsyms + 16, guest.place(std::as_bytes(std::span("\0first\0second", 14))));
    guest.put_pointer(kallsyms + 24, guest.place_string("?tDt"));
    guest.put_pointer(module + kallsyms_at, kallsyms);
    guest.put_pointer(module + mem_at, start);
    guest.put(module + mem_at + 8, std::uint32_t{0x1000});
    guest.put_pointer(module + mem_at + 32, start + 0x10000);
    guest.put(module + mem_at + 40, std::uint32_t{0x2000});
    const GuestVirt exported = guest.allocate(12);
    guest.put(exported, static_cast<std::uint32_t>(start.raw() + 0x10 - exported.raw()));
    guest.put(exported + 4, static_cast<std::uint32_t>(guest.place_string("first") - exported - 4));
    guest.put_pointer(module + syms_at, exported);
    guest.put(module + num_syms_at, std::uint32_t{1});
    nodes.push_back(module + list_at);
    guest.link_list(guest.image(0x1000), nodes);
    return module;
  }

  std::vector<LoadedModule> read() {
    Reader reader(guest.memory(), kernel.space());
    auto modules = read_modules(kernel, reader);
    EXPECT_TRUE(modules) << (modules ? "" : modules.error().message);
    EXPECT_TRUE(reader.ok());
    return modules ? *std::move(modules) : std::vector<LoadedModule>{};
  }

  SyntheticGuest guest;
  TypedKernel kernel{guest.space(), types()};
  std::vector<GuestVirt> nodes;
  // Near the exports table: it holds 32-bit distances.
  GuestVirt base = guest.direct(GuestPhys(0x800000));
};

TEST_F(ModulesTest, NoneAreLoaded) { EXPECT_TRUE(read().empty()); }

TEST_F(ModulesTest, ReadsSymbolsWithTheirLettersAndPlaces) {
  add_module("one", base);
  add_module("two", base + 0x100000);
  const auto modules = read();
  ASSERT_EQ(modules.size(), 2U);
  EXPECT_EQ(modules[1].name, "two");
  const auto& symbols = modules[0].symbols;
  ASSERT_EQ(symbols.size(), 2U);
  EXPECT_EQ(symbols[0].name, "first");
  EXPECT_EQ(symbols[0].type, 'T');  // exported
  EXPECT_EQ(symbols[0].address, base + 0x10);
  EXPECT_EQ(symbols[1].name, "second");
  EXPECT_EQ(symbols[1].type, 'd');  // not
  EXPECT_TRUE(modules[0].contains(base + 0xfff));
  EXPECT_TRUE(modules[0].contains(base + 0x11fff));
  EXPECT_FALSE(modules[0].contains(base + 0x1000));
  EXPECT_FALSE(modules[0].contains(base - 1));
}

TEST_F(ModulesTest, AModuleThatIsNotCompleteIsLeftOut) {
  guest.put(add_module("one", base) + state_at, std::uint32_t{3});
  EXPECT_TRUE(read().empty());
}

TEST_F(ModulesTest, AWildPointerCostsOneModuleOnly) {
  guest.put_pointer(add_module("one", base) + kallsyms_at, GuestVirt(0x1234));
  add_module("two", base);
  const auto modules = read();
  ASSERT_EQ(modules.size(), 2U);
  EXPECT_TRUE(modules[0].symbols.empty());
  EXPECT_EQ(modules[1].symbols.size(), 2U);
}

TEST_F(ModulesTest, CyclesAndAbsurdCountsEnd) {
  const GuestVirt module = add_module("one", base);
  guest.put_pointer(module + list_at, module + list_at);  // never comes back to the head
  guest.put(guest.allocate(4), std::uint32_t{0});
  EXPECT_FALSE(read().empty());
  const GuestVirt kallsyms(guest.memory().get<std::uint64_t>(
      *guest.space().translate(guest.memory(), module + kallsyms_at)));
  guest.put(kallsyms + 8, UINT32_MAX);
  guest.put(module + num_syms_at, UINT32_MAX);
  static_cast<void>(read());
}

TEST_F(ModulesTest, AKernelWithoutTheMemberSaysWhich) {
  BtfBuilder b;
  b.structure("module", 8, {});
  TypedKernel other(guest.space(), *Btf::parse(b.blob()));
  other.add_symbol("modules", guest.image(0x1000));
  Reader reader(guest.memory(), other.space());
  const auto modules = read_modules(other, reader);
  ASSERT_FALSE(modules);
  EXPECT_EQ(modules.error().code, ErrorCode::unsupported);
  EXPECT_NE(modules.error().message.find("module.list"), std::string::npos);
}

TEST_F(ModulesTest, FindsTheTypesOfAModule) {
  const GuestVirt entry = guest.allocate(32), btf = guest.allocate(128);
  const std::vector<std::byte> blob(5000, std::byte{7});
  guest.map_scattered(GuestVirt(0xffffc90000000000), 8192);
  guest.write(GuestVirt(0xffffc90000000000), blob);
  guest.put_pointer(entry + 24, btf);
  guest.put_pointer(btf, GuestVirt(0xffffc90000000000));
  guest.put(btf + 8, static_cast<std::uint32_t>(blob.size()));
  guest.write(btf + 16, std::as_bytes(std::span("virtio_net", 11)));
  const GuestVirt list[] = {entry};
  guest.link_list(guest.image(0x2000), list);
  Reader reader(guest.memory(), kernel.space());
  const auto found = read_module_btf(kernel, reader, "virtio_net");
  ASSERT_TRUE(found);
  EXPECT_TRUE(*found == blob);
  const auto absent = read_module_btf(kernel, reader, "virtio");
  ASSERT_TRUE(absent);
  EXPECT_FALSE(*absent);
  guest.put(btf + 8, std::uint32_t{20000});  // more than is mapped
  EXPECT_FALSE(read_module_btf(kernel, reader, "virtio_net"));
  EXPECT_TRUE(reader.ok());
}

}  // namespace
}  // namespace vmsight::kernel_modules_test
