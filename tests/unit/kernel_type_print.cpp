#include "kernel/type_print.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <random>

#include "support/btf_builder.h"
#include "support/faulty_memory.h"
#include "support/typed_kernel.h"

namespace vmsight::kernel_type_print_test {
namespace {

using nlohmann::ordered_json;
using test::BtfBuilder;
using test::SyntheticGuest;
using test::TypedKernel;

/// A few types with everything that C has. Says how long their strings are, for split BTF.
std::unique_ptr<Btf> make_types(std::uint32_t& strings_size) {
  BtfBuilder b;
  const TypeId integer = b.integer("int", 4, 1);
  const TypeId u64 = b.integer("long unsigned int", 8);
  const TypeId character = b.integer("char", 1, 1);
  const TypeId boolean = b.integer("bool", 1, 4);
  const TypeId text = b.pointer(b.refer(BtfKind::const_type, character));
  const TypeId color = b.enumeration("color", {{"RED", 1}, {"BLUE", 5}}, false);
  const TypeId to_list = b.pointer(b.next_id() + 1);
  const TypeId list = b.structure("list", 16, {{"next", to_list, 0}, {"prev", to_list, 64}});
  const TypeId handler = b.pointer(b.prototype(integer, {{"fd", integer}, {"", 0}}));
  const TypeId number = b.refer(BtfKind::typedef_name, u64, "u64");
  const TypeId unnamed =
      b.composite(BtfKind::union_type, "", 8, {{"whole", u64, 0}, {"low", integer, 0}});
  const TypeId point = b.structure("", 8, {{"x", integer, 0}, {"y", integer, 32}});
  b.refer(BtfKind::typedef_name, point, "point_t");
  const TypeId comm = b.array(character, 16);
  const TypeId table = b.array(integer, 6);
  const TypeId self = b.pointer(b.next_id() + 1);
  const TypeId thing = b.structure("thing", 120,
                                   {{"comm", comm, 0},
                                    {"name", text, 128},
                                    {"color", color, 192},
                                    {"ready", boolean, 224},
                                    {"a", integer, 256, 3},
                                    {"b", integer, 259, 5},
                                    {"", unnamed, 320},
                                    {"handler", handler, 384},
                                    {"self", self, 448},
                                    {"table", table, 512},
                                    {"nested", list, 704},
                                    {"where", point, 832},
                                    {"when", number, 896}});
  b.refer(BtfKind::function, b.prototype(integer, {{"it", b.pointer(thing)}}), "do_thing");
  b.section(".data..percpu", {b.variable("per_cpu_number", u64)});
  strings_size = b.strings_size();
  auto btf = Btf::parse(b.blob());
  EXPECT_TRUE(btf) << btf.error().message;
  return *std::move(btf);
}

class PrintTest : public ::testing::Test {
 protected:
  PrintTest()
      : kernel(guest.space(), make_types(strings_size)), reader(guest.memory(), kernel.space()) {
    thing = guest.image(0x1000);
    kernel.add_symbol("the_thing", thing);
    kernel.add_symbol("per_cpu_number", guest.image(0x4000));
    kernel.set_per_cpu_offsets({0, 0x1000});
    guest.write(thing, std::as_bytes(std::span("init\0rubbish", 12)));
    guest.put_pointer(thing + 16, guest.place_string("a \"name\"\x1b"));
    guest.put(thing + 24, std::uint32_t{5});
    guest.put(thing + 28, std::uint8_t{1});
    guest.put(thing + 32, std::uint8_t{0b11110'101});
    guest.put(thing + 40, std::uint64_t{0xffffffff'00000007});
    guest.put_pointer(thing + 48, guest.image(0x1000));
    guest.put_pointer(thing + 56, thing);
    guest.put(thing + 64, std::array<std::int32_t, 6>{1, 2, 2, 2, 2, -3});
    guest.put_pointer(thing + 88, thing + 88);
    guest.put_pointer(thing + 96, GuestVirt(0x10));
    guest.put(thing + 104, std::array<std::int32_t, 2>{-1, 9});
  }

  Printed print(std::string expression) {
    PrintRequest request;
    request.expression = std::move(expression);
    auto printed = evaluate(kernel, reader, request);
    EXPECT_TRUE(printed) << printed.error().message;
    EXPECT_TRUE(reader.ok());
    return printed ? *std::move(printed) : Printed();
  }
  std::string text(std::string expression) {
    std::string line = to_text(print(std::move(expression)));
    return line.substr(line.find(" = ") + 3, line.size() - line.find(" = ") - 4);
  }
  ErrorCode failure(std::string expression) {
    PrintRequest request;
    request.expression = std::move(expression);
    auto printed = evaluate(kernel, reader, request);
    EXPECT_FALSE(printed);
    return printed ? ErrorCode::os : printed.error().code;
  }
  std::string whole() const { return "(*(struct thing *)&the_thing)"; }

  SyntheticGuest guest;
  std::uint32_t strings_size = 0;
  TypedKernel kernel;
  Reader reader;
  GuestVirt thing;
};

TEST_F(PrintTest, ModulesHaveNamesOfTheirOwn) {
  const Btf& base = **kernel.btf();
  BtfBuilder own(base, strings_size);
  own.structure("gadget", 8, {{"count", *base.find_type("int"), 32}});
  auto btf = Btf::parse(own.blob(), &base);
  ASSERT_TRUE(btf) << btf.error().message;
  kernel.add_module("shop", *std::move(btf));
  const GuestVirt gadget = guest.image(0x2000);
  guest.put(gadget + 4, std::int32_t{77});
  kernel.add_module_symbol("other", "the_gadget", guest.image(0x3000));
  kernel.add_module_symbol("shop", "the_gadget", gadget);

  EXPECT_EQ(text("((struct shop:gadget *)&shop:the_gadget)->count"), "77");
  EXPECT_EQ(text(fmt::format("((struct shop:gadget *){:#x})->count", gadget.raw())), "77");
  EXPECT_EQ(text("((struct gadget *)&shop:the_gadget)->count"), "77") << "said once is enough";
  EXPECT_EQ(text("((struct shop:thing *)&the_thing)->where.y"), "9") << "the kernel's types too";
  PrintRequest request;
  request.expression = "struct shop:gadget";
  request.address = gadget;
  EXPECT_NE(to_text(*evaluate(kernel, reader, request)).find(".count = 77"), std::string::npos);

  EXPECT_EQ(failure("((struct gadget *)&the_thing)->count"), ErrorCode::not_found) << "whose?";
  EXPECT_EQ(failure("&absent:the_gadget"), ErrorCode::not_found);
  EXPECT_EQ(failure("&shop:absent"), ErrorCode::not_found);
  EXPECT_EQ(failure("((struct other:gadget *)&shop:the_gadget)->count"), ErrorCode::usage);
  EXPECT_EQ(failure("&shop:"), ErrorCode::not_found);
  EXPECT_EQ(failure(":the_gadget"), ErrorCode::usage);
}

TEST_F(PrintTest, DefinitionsAreCWithOffsetsAndHoles) {
  const Btf& btf = **kernel.btf();
  EXPECT_EQ(*print_type(btf, "thing"),
            R"(struct thing {
    char comm[16];                                      /*     0    16 */
    const char *name;                                   /*    16     8 */
    enum color color;                                   /*    24     4 */
    bool ready;                                         /*    28     1 */
    /* hole: 3 bytes */
    int a:3;                                            /*    32: 0  4 */
    int b:5;                                            /*    32: 3  4 */
    /* hole: 7 bytes */
    union {
        long unsigned int whole;                        /*    40     8 */
        int low;                                        /*    40     4 */
    };                                                  /*    40     8 */
    int (*handler)(int fd, ...);                        /*    48     8 */
    struct thing *self;                                 /*    56     8 */
    int table[6];                                       /*    64    24 */
    struct list nested;                                 /*    88    16 */
    struct {
        int x;                                          /*   104     4 */
        int y;                                          /*   108     4 */
    } where;                                            /*   104     8 */
    u64 when;                                           /*   112     8 */
};                                                      /* size: 120, members: 13 */
)");
  EXPECT_EQ(*print_type(btf, "do_thing"), "int do_thing(struct thing *it);\n");
  EXPECT_EQ(print_type(btf, "point_t")->substr(0, 17), "typedef struct {\n");
  EXPECT_EQ(print_type(btf, "u64")->substr(0, 30), "typedef long unsigned int u64;");
  EXPECT_EQ(print_type(btf, "enum color")->substr(0, 36), "enum color {\n    RED = 1,\n    BLUE =");
  EXPECT_EQ(print_type(btf, "absent").error().code, ErrorCode::not_found);
}

TEST_F(PrintTest, DefinitionsAsJson) {
  const ordered_json json = *type_to_json(**kernel.btf(), "thing");
  EXPECT_EQ(json.items().begin().key(), "schema");
  EXPECT_EQ(json["schema"], "vmsight.type/1");
  EXPECT_EQ(json["size"], 120);
  EXPECT_EQ(json["members"][0],
            ordered_json::parse(R"({"name":"comm","type":"char [16]","offset":0,"size":16})"));
  EXPECT_EQ(json["members"][5]["bit_offset"], 3);
  EXPECT_EQ(json["members"][6]["members"][1]["name"], "low");
  EXPECT_EQ((*type_to_json(**kernel.btf(), "do_thing"))["parameters"][0]["type"], "struct thing *");
}

TEST_F(PrintTest, Scalars) {
  EXPECT_EQ(text(whole() + ".comm"), "\"init\"");
  EXPECT_EQ(text(whole() + ".comm[1]"), "110");
  EXPECT_EQ(text(whole() + ".color"), "BLUE");
  EXPECT_EQ(text(whole() + ".ready"), "true");
  EXPECT_EQ(text(whole() + ".a"), "-3");
  EXPECT_EQ(text(whole() + ".b"), "-2");
  EXPECT_EQ(text(whole() + ".low"), "7");
  EXPECT_EQ(text(whole() + ".whole"), "0xffffffff00000007");
  EXPECT_EQ(text(whole() + ".table"), "{ 1, [1 ... 4] = 2, -3 }");
  EXPECT_EQ(text(whole() + ".table[5]"), "-3");
  EXPECT_EQ(text(whole() + ".handler"), "0xffffffff81001000 <the_thing>");
  EXPECT_NE(text(whole() + ".name").find(" \"a \\\"name\\\"\\x1b\""), std::string::npos);
}

TEST_F(PrintTest, PathsThroughPointers) {
  EXPECT_EQ(text(whole() + ".self->self.where.y"), "9");
  EXPECT_EQ(text("((struct thing *)&the_thing)->self->table[1]"), "2");
  EXPECT_EQ(text("*((struct thing *)&the_thing)->self->name"), "97");
  EXPECT_EQ(text("&" + whole() + ".nested"), "0xffffffff81001058 <the_thing+0x58>");
  EXPECT_EQ(print("*" + whole() + ".self").type, "struct thing");
  EXPECT_EQ(print("(struct thing *)0x10").type, "struct thing *");
  EXPECT_EQ(text("(struct thing *)0x10"), "0x10");
  EXPECT_EQ(text("((int *)" + whole() + ".self)[17]"), "2");
}

TEST_F(PrintTest, ATypeAtAnAddress) {
  PrintRequest request;
  request.expression = "struct list";
  request.address = thing + 88;
  auto printed = evaluate(kernel, reader, request);
  ASSERT_TRUE(printed);
  EXPECT_EQ(to_text(*printed),
            "struct list @ 0xffffffff81001058 = {\n"
            "    .next = 0xffffffff81001058 <the_thing+0x58>,\n    .prev = 0x10,\n}\n");
}

TEST_F(PrintTest, PerCpuVariablesNeedACpu) {
  EXPECT_EQ(failure("per_cpu_number"), ErrorCode::usage);
  guest.put(guest.image(0x5000), std::uint64_t{42});
  PrintRequest request;
  request.expression = "per_cpu_number";
  request.cpu = 1;
  EXPECT_EQ(to_text(*evaluate(kernel, reader, request)),
            "long unsigned int @ 0xffffffff81005000 = 42\n");
  request.cpu = 2;
  EXPECT_EQ(evaluate(kernel, reader, request).error().code, ErrorCode::usage);
}

TEST_F(PrintTest, DepthIsBounded) {
  PrintRequest request;
  request.expression = "struct thing";
  request.address = thing;
  request.depth = 0;
  const std::string line = to_text(*evaluate(kernel, reader, request));
  EXPECT_NE(line.find(".nested = {...},"), std::string::npos) << line;
  EXPECT_NE(line.find(".low = 7,"), std::string::npos) << "anonymous members do not count";
}

TEST_F(PrintTest, JsonHasTheSameValues) {
  const ordered_json json = to_json(print(whole()));
  EXPECT_EQ(json["schema"], "vmsight.print/1");
  EXPECT_EQ(json["type"], "struct thing");
  EXPECT_EQ(json["address"], "0xffffffff81001000");
  const ordered_json& value = json["value"];
  EXPECT_EQ(value["comm"], "init");
  EXPECT_EQ(value["color"], "BLUE");
  EXPECT_EQ(value["ready"], true);
  EXPECT_EQ(value["table"], ordered_json({1, 2, 2, 2, 2, -3}));
  EXPECT_EQ(value["where"]["x"], -1);
  EXPECT_EQ(value["whole"], 0xffffffff00000007ULL);
}

TEST_F(PrintTest, WhatIsNotMappedIsShownAsSuch) {
  PrintRequest request;
  request.expression = "struct thing";
  // The last page of the image: its end is not mapped.
  request.address = guest.image(guest.options().image_size - 60);
  auto printed = evaluate(kernel, reader, request);
  ASSERT_TRUE(printed);
  const std::string out = to_text(*printed);
  EXPECT_NE(out.find(".when = /* not mapped */"), std::string::npos) << out;
  EXPECT_NE(out.find(".comm = \"\""), std::string::npos) << out;
  EXPECT_TRUE(to_json(*printed)["value"]["when"].is_null());
  EXPECT_EQ(failure("((struct thing *)0x10)->self->self"), ErrorCode::fault);
}

TEST_F(PrintTest, MistakesAreExplained) {
  EXPECT_EQ(failure(""), ErrorCode::usage);
  EXPECT_EQ(failure("absent"), ErrorCode::not_found);
  EXPECT_EQ(failure("the_thing"), ErrorCode::usage) << "no type";
  EXPECT_EQ(failure("the_thing.comm"), ErrorCode::usage);
  EXPECT_EQ(failure(whole() + ".absent"), ErrorCode::not_found);
  EXPECT_EQ(failure(whole() + ".comm.x"), ErrorCode::usage);
  EXPECT_EQ(failure(whole() + ".table[x]"), ErrorCode::usage);
  EXPECT_EQ(failure(whole() + ")"), ErrorCode::usage);
  EXPECT_EQ(failure("*" + whole() + ".a"), ErrorCode::usage);
  EXPECT_EQ(failure("&" + whole() + ".a"), ErrorCode::usage);
  EXPECT_EQ(failure("0x"), ErrorCode::usage);
  EXPECT_EQ(failure(std::string(1000, '*') + "the_thing"), ErrorCode::usage);
  EXPECT_EQ(failure(std::string(100000, '(')), ErrorCode::usage);
}

TEST_F(PrintTest, HostileTypesAreBounded) {
  BtfBuilder b;
  const TypeId integer = b.integer("int\x1b[2J", 4, 1);
  // Each holds two of the next: 2^40 values.
  for (std::uint32_t i = 0; i < 40; ++i) {
    b.structure(i == 0 ? "doubling" : "", 8, {{"", b.next_id() + 1, 0}, {"", b.next_id() + 1, 32}});
  }
  b.structure("last", 8, {{"x", integer, 0}});
  b.structure("huge", 0xfffffff0, {{"all", b.array(b.array(integer, 0xffff), 0xffff), 0}});
  // A function that takes pointers to itself, twice.
  const TypeId self = b.pointer(b.next_id() + 1);
  const TypeId prototype = b.prototype(integer, {{"f", self}, {"g", self}});
  b.refer(BtfKind::function, prototype, "recursive");
  auto parsed = Btf::parse(b.blob());
  ASSERT_TRUE(parsed) << parsed.error().message;
  for (const char* name : {"doubling", "huge", "recursive", "int\x1b[2J"}) {
    auto text = print_type(**parsed, name);
    ASSERT_TRUE(text) << name;
    EXPECT_LT(text->size(), 16U << 20) << name;
    EXPECT_EQ(text->find('\x1b'), std::string::npos);
    EXPECT_TRUE(type_to_json(**parsed, name));
  }
  TypedKernel hostile(guest.space(), *std::move(parsed));
  for (const char* name : {"doubling", "huge"}) {
    PrintRequest request;
    request.expression = name;
    request.address = guest.image(0);
    request.depth = 1000;
    auto printed = evaluate(hostile, reader, request);
    ASSERT_TRUE(printed) << name;
    EXPECT_LT(to_text(*printed).size(), 64U << 20);
    EXPECT_LT(to_json(*printed).dump().size(), 64U << 20);
  }
}

TEST_F(PrintTest, KnownGlobals) {
  ASSERT_NE(find_known_global("init_task"), nullptr);
  EXPECT_EQ(find_known_global("init_task")->type, "struct task_struct");
  EXPECT_TRUE(find_known_global("runqueues")->per_cpu);
  EXPECT_EQ(find_known_global("absent"), nullptr);
}

}  // namespace
}  // namespace vmsight::kernel_type_print_test
