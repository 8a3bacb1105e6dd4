#include "probe/arguments.h"

#include <gtest/gtest.h>

#include "support/btf_builder.h"
#include "support/typed_kernel.h"

namespace vmsight::probe_arguments_test {
namespace {

using namespace test;

std::unique_ptr<Btf> make_types() {
  BtfBuilder b;
  const TypeId integer = b.integer("int", 4, 1);
  const TypeId u64 = b.integer("long unsigned int", 8);
  const TypeId s64 = b.integer("long int", 8, 1);
  const TypeId character = b.integer("char", 1, 1);
  const TypeId boolean = b.integer("bool", 1, 4);
  const TypeId u16 = b.integer("short unsigned int", 2);
  const TypeId mode = b.refer(BtfKind::typedef_name, u16, "umode_t");
  const TypeId text = b.pointer(b.refer(BtfKind::const_type, character));
  const TypeId buffer = b.pointer(character);
  const TypeId color = b.enumeration("color", {{"RED", 1}, {"BLUE", 5}}, false);
  const TypeId name = b.structure("filename", 16, {{"name", text, 64}});
  const TypeId small = b.structure("small", 8, {{"x", u64, 0}});
  const TypeId medium = b.structure("medium", 16, {{"x", u64, 0}, {"y", u64, 64}});
  const TypeId large = b.structure("large", 24, {{"x", u64, 0}, {"y", u64, 64}, {"z", u64, 128}});
  const TypeId regs = b.structure("pt_regs", 64,
                                  {{"di", u64, 0},
                                   {"si", u64, 64},
                                   {"dx", u64, 128},
                                   {"r10", u64, 192},
                                   {"r8", u64, 256},
                                   {"r9", u64, 320}});
  b.refer(BtfKind::function,
          b.prototype(integer, {{"dfd", integer},
                                {"path", text},
                                {"mode", mode},
                                {"color", color},
                                {"ready", boolean},
                                {"name", b.pointer(name)}}),
          "plain");
  b.refer(BtfKind::function,
          b.prototype(text, {{"a", u64},
                             {"flags", integer},
                             {"buf", buffer},
                             {"", u64},
                             {"e", u64},
                             {"f", u64},
                             {"g", s64},
                             {"h", integer},
                             {"", 0}}),
          "many");
  b.refer(BtfKind::function,
          b.prototype(0, {{"first", small}, {"second", medium}, {"third", large}, {"last", u64}}),
          "by_value");
  b.refer(BtfKind::function, b.prototype(s64, {{"regs", b.pointer(regs)}}), "__x64_sys_openat");
  b.refer(
      BtfKind::function,
      b.prototype(s64, {{"dfd", integer}, {"filename", text}, {"flags", integer}, {"mode", mode}}),
      "__do_sys_openat");
  b.refer(BtfKind::function, b.prototype(s64, {{"regs", b.pointer(regs)}}), "__x64_sys_unknown");
  b.refer(BtfKind::function, integer, "broken");  // no prototype
  auto btf = Btf::parse(b.blob());
  return btf ? *std::move(btf) : nullptr;
}

class Arguments : public ::testing::Test {
 protected:
  Arguments()
      : kernel_(guest_.space(), make_types()),
        space_(guest_.space()),
        reader_(guest_.memory(), space_) {}
  FunctionPlan plan(const char* function, bool at_return = false) {
    return plan_function(kernel_, reader_, {.at_return = at_return, .function = function});
  }
  static std::string text(const FunctionPlan& plan, const Hit& hit) {
    std::string all;
    for (const ProbeValue& value : decode_arguments(plan, hit))
      all += value.plan->name + "=" + to_text(value) + " ";
    return all;
  }
  static Fetched number(std::uint64_t value) { return {.ok = true, .value = value}; }
  static Fetched string(std::string bytes, bool cut = false) {
    return {.ok = true, .cut = cut, .value = 0x7fff0000, .bytes = std::move(bytes)};
  }

  SyntheticGuest guest_;
  TypedKernel kernel_;
  AddressSpace space_;
  Reader reader_;
};

TEST_F(Arguments, FollowTheCallingConvention) {
  const FunctionPlan many = plan("many");
  ASSERT_EQ(many.arguments.size(), 8u);  // "..." is none
  const std::uint8_t registers[] = {reg::rdi, reg::rsi, reg::rdx, reg::rcx, reg::r8, reg::r9};
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(many.fetches[many.arguments[i].value].base, registers[i]) << i;
    EXPECT_EQ(many.fetches[many.arguments[i].value].step_count, 0) << i;
  }
  for (std::size_t i = 6; i < 8; ++i) {
    const ProbeFetch& fetch = many.fetches[many.arguments[i].value];
    EXPECT_EQ(fetch.base, reg::rsp);
    EXPECT_EQ(fetch.steps[0], static_cast<std::int32_t>(8 * (i - 5)));
  }
  EXPECT_EQ(many.arguments[3].name, "arg3");
  EXPECT_EQ(many.arguments[2].shape,
            ArgumentPlan::Shape::pointer);  // not const: nobody wrote it yet
  ASSERT_TRUE(many.result);
  EXPECT_EQ(many.fetches_return[0].what, ProbeFetch::What::string);
}

TEST_F(Arguments, StructuresByValue) {
  const FunctionPlan values = plan("by_value");
  ASSERT_EQ(values.arguments.size(), 4u);
  EXPECT_EQ(values.arguments[0].shape, ArgumentPlan::Shape::hexadecimal);
  EXPECT_EQ(values.arguments[1].shape, ArgumentPlan::Shape::opaque);
  EXPECT_EQ(values.fetches[values.arguments[1].value].base, reg::rsi);
  EXPECT_EQ(values.fetches[values.arguments[2].value].base, reg::rsp);  // too large for registers
  EXPECT_EQ(values.fetches[values.arguments[3].value].base,
            reg::rcx);  // behind the two of `second`
  EXPECT_FALSE(values.result);
  const Hit hit{.fetched = {number(7), number(1), number(2), number(3)}};
  EXPECT_EQ(
      text(values, hit),
      "first=0x7 second=? (16 bytes passed by value) third=? (24 bytes passed by value) last=3 ");
}

TEST_F(Arguments, ShowValuesByTheirTypes) {
  const FunctionPlan plain = plan("plain");
  ASSERT_EQ(plain.fetches.size(), 7u);  // and the name behind the last pointer
  Hit hit{.fetched = {number(0xffffff9c), string("/etc/pass\nwd"), number(0xabcd0000000081a4),
                      number(5), number(0xff01), number(0xffff888000001000),
                      string("/bin/sh", true)}};
  EXPECT_EQ(text(plain, hit),
            "dfd=AT_FDCWD path=\"/etc/pass\\nwd\" mode=0100644 color=BLUE ready=true "
            "name=0xffff888000001000 \"/bin/sh\"... ");
  hit.fetched[1] = {.has_value = true, .value = 0x7f0012345678};
  hit.fetched[3] = number(4);
  hit.fetched[5] = number(0);
  hit.fetched[6] = {.ok = true};
  EXPECT_EQ(
      text(plain, hit),
      "dfd=AT_FDCWD path=0x7f0012345678 (not present) mode=0100644 color=4 ready=true name=NULL ");
  hit.fetched.clear();
  EXPECT_EQ(text(plain, hit).substr(0, 20), "dfd=? (not present) ");
}

TEST_F(Arguments, ResultsNameErrors) {
  const FunctionPlan plain = plan("plain", true);
  Hit hit{{.at_return = true}, {}, {number(0xfffffffe)}};
  EXPECT_EQ(to_text(*decode_result(plain, hit), true), "-2 (ENOENT)");
  hit.fetched_return = {number(3)};
  EXPECT_EQ(to_text(*decode_result(plain, hit), true), "3");
  hit.at_return = false;
  EXPECT_FALSE(decode_result(plain, hit));
}

TEST_F(Arguments, SystemCallsAreDecodedFromTheCallersRegisters) {
  const FunctionPlan open = plan("__x64_sys_openat");
  EXPECT_EQ(open.name, "openat");
  ASSERT_EQ(open.arguments.size(), 4u);
  EXPECT_EQ(open.arguments[1].name, "filename");
  const ProbeFetch& path = open.fetches[open.arguments[1].value];
  EXPECT_EQ(path.what, ProbeFetch::What::string);
  EXPECT_EQ(path.base, reg::rdi);
  EXPECT_EQ(path.step_count, 1);
  EXPECT_EQ(path.steps[0], 8);  // pt_regs.si
  const Hit hit{.fetched = {number(0xffffff9c), string("x"), number(0x241), number(0600)}};
  EXPECT_EQ(text(open, hit),
            "dfd=AT_FDCWD filename=\"x\" flags=O_WRONLY|O_CREAT|O_TRUNC mode=0600 ");
  EXPECT_EQ(plan("__x64_sys_unknown").arguments.size(), 6u);
}

TEST_F(Arguments, TheKernelsOwnTableOfSystemCallsComesFirst) {
  BtfBuilder b;
  const TypeId u64 = b.integer("long unsigned int", 8);
  const TypeId integer = b.integer("int", 4, 1);
  b.structure("pt_regs", 64, {{"di", u64, 0}, {"si", u64, 64}});
  b.structure("syscall_metadata", 32,
              {{"name", u64, 0},
               {"syscall_nr", integer, 64},
               {"nb_args", integer, 96},
               {"types", u64, 128},
               {"args", u64, 192}});
  TypedKernel kernel(guest_.space(), *Btf::parse(b.blob()));
  const GuestVirt types = guest_.allocate(16), names = guest_.allocate(16),
                  call = guest_.allocate(32);
  guest_.put_pointer(types, guest_.place_string("unsigned int"));
  guest_.put_pointer(types + 8, guest_.place_string("const char *"));
  guest_.put_pointer(names, guest_.place_string("fd"));
  guest_.put_pointer(names + 8, guest_.place_string("path"));
  guest_.put(call + 8, std::uint32_t{80});
  guest_.put(call + 12, std::uint32_t{2});
  guest_.put_pointer(call + 16, types);
  guest_.put_pointer(call + 24, names);
  kernel.add_symbol("__syscall_meta__chdir", call);
  const auto read = [&] { return plan_function(kernel, reader_, {.function = "__x64_sys_chdir"}); };
  FunctionPlan plan = read();
  EXPECT_EQ(plan.system_call, 80);
  ASSERT_EQ(plan.arguments.size(), 2u);
  EXPECT_EQ(plan.arguments[0].type, "unsigned int");
  EXPECT_TRUE(plan.arguments[0].is_signed);  // a descriptor is an int, whatever the kernel calls it
  EXPECT_EQ(plan.arguments[1].shape, ArgumentPlan::Shape::text);
  guest_.put(call + 12, std::uint32_t{1u << 30});  // forged
  reader_.flush();
  EXPECT_EQ(read().system_call, std::nullopt);
}

TEST_F(Arguments, WhatHasNoTypesHasRegisters) {
  for (const char* function : {"unheard_of", "copy.isra.0", "broken"}) {
    const FunctionPlan unknown = plan(function);
    EXPECT_EQ(unknown.arguments.size(), 6u) << function;
    EXPECT_FALSE(unknown.problem.empty()) << function;
  }
  const FunctionPlan inside = plan_function(kernel_, reader_, {.function = "plain", .offset = 4});
  EXPECT_TRUE(inside.arguments.empty());
  EXPECT_FALSE(inside.problem.empty());
}

TEST_F(Arguments, FiltersNameThem) {
  const FunctionPlan plain = plan("plain", true);
  const FilterNames names = filter_names(plain, true);
  EXPECT_TRUE(parse_filter(
      "dfd == -100 && path == x && name == y && arg5 > 3 && retval < 0 && duration > 5", names));
  EXPECT_FALSE(parse_filter("arg6 == 1", names));
  EXPECT_FALSE(parse_filter("retval == 1", filter_names(plain, false)));
  Hit hit{.fetched = {number(0xffffff9c)}, .fetched_return = {number(0xfffffffe)}};
  EXPECT_TRUE(passes(*parse_filter("dfd == -100", names), hit));
  EXPECT_TRUE(passes(*parse_filter("retval == -2", names), hit));
}

}  // namespace
}  // namespace vmsight::probe_arguments_test
