#include "kernel/btf.h"

#include <gtest/gtest.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "support/btf_builder.h"

namespace vmsight::kernel_btf_test {
namespace {

using test::BtfBuilder;

std::unique_ptr<Btf> parsed(const BtfBuilder& builder, const Btf* base = nullptr) {
  auto btf = Btf::parse(builder.blob(), base);
  EXPECT_TRUE(btf) << btf.error().message;
  return btf ? *std::move(btf) : nullptr;
}

/// Everything that can be asked of a type; must neither crash nor run for long.
void ask_everything(const Btf& btf) {
  for (TypeId id = 0; id < btf.end_id(); ++id) {
    const BtfType type = btf.type(id);
    static_cast<void>(btf.size_of(id));
    static_cast<void>(btf.resolve(id));
    static_cast<void>(btf.member(id, "a.b"));
    static_cast<void>(btf.find_type(type.name));
  }
  static_cast<void>(btf.enumerator("E"));
}

TEST(Btf, ReadsMembersThroughAnonymousOnesAndTypedefs) {
  BtfBuilder b;
  const TypeId u32 = b.integer("unsigned int", 4);
  const TypeId u64 = b.integer("long unsigned int", 8);
  const TypeId inner = b.composite(BtfKind::union_type, "", 8, {{"low", u32, 0}, {"all", u64, 0}});
  const TypeId named = b.structure("named", 16, {{"x", u32, 0}, {"", inner, 64}});
  const TypeId alias = b.refer(BtfKind::typedef_name, named, "named_t");
  const TypeId constant = b.refer(BtfKind::const_type, alias);
  b.structure("outer", 32, {{"first", u64, 0}, {"nested", constant, 64}, {"", inner, 192}});
  const auto btf = parsed(b);
  EXPECT_EQ(btf->member("outer", "nested.all"), (Member{.offset = 16, .size = 8}));
  EXPECT_EQ(btf->member("outer", "nested.x"), (Member{.offset = 8, .size = 4}));
  EXPECT_EQ(btf->member("outer", "low"), (Member{.offset = 24, .size = 4}));
  EXPECT_EQ(btf->member("struct outer", "nested")->size, 16U);
  EXPECT_EQ(btf->member("named_t", "low")->offset, 8U);
  EXPECT_FALSE(btf->member("outer", "absent"));
  EXPECT_FALSE(btf->member("outer", "first.x"));
  EXPECT_FALSE(btf->member("outer", ""));
  EXPECT_FALSE(btf->member("outer", "nested..x"));
  EXPECT_FALSE(btf->member("union outer", "first"));
}

TEST(Btf, ArraysHaveACountAndNeedAnIndexToBeEntered) {
  BtfBuilder b;
  const TypeId byte = b.integer("char", 1);
  const TypeId comm = b.array(byte, 16);
  const TypeId cell = b.structure("cell", 8, {{"tag", byte, 0}, {"value", byte, 32}});
  const TypeId grid = b.array(b.array(cell, 3), 2);
  const TypeId flexible = b.array(cell, 0);
  b.structure("s", 64, {{"comm", comm, 0}, {"grid", grid, 128}, {"rest", flexible, 512}});
  const auto btf = parsed(b);
  EXPECT_EQ(btf->member("s", "comm"), (Member{.offset = 0, .size = 16, .count = 16}));
  EXPECT_EQ(btf->member("s", "grid"), (Member{.offset = 16, .size = 48, .count = 6}));
  EXPECT_EQ(btf->member("s", "grid[1][2].value"), (Member{.offset = 16 + 40 + 4, .size = 1}));
  EXPECT_EQ(btf->member("s", "rest[3].value"), (Member{.offset = 64 + 24 + 4, .size = 1}));
  EXPECT_EQ(btf->member("s", "rest")->count, 0U);
  EXPECT_FALSE(btf->member("s", "grid.value"));
  EXPECT_FALSE(btf->member("s", "grid[2][0]"));
  EXPECT_FALSE(btf->member("s", "comm[16]"));
  EXPECT_FALSE(btf->member("s", "comm[x]"));
  EXPECT_FALSE(btf->member("s", "comm[1"));
}

TEST(Btf, BitfieldsLieInTheirStorageUnit) {
  BtfBuilder b;
  const TypeId u32 = b.integer("unsigned int", 4);
  const TypeId u8 = b.integer("unsigned char", 1);
  b.structure("s", 12, {{"plain", u32, 0}, {"a", u32, 32, 3}, {"b", u32, 51, 5}, {"c", u8, 77, 3}});
  const auto btf = parsed(b);
  EXPECT_EQ(btf->member("s", "plain"), (Member{.offset = 0, .size = 4}));
  EXPECT_EQ(btf->member("s", "a"),
            (Member{.offset = 4, .size = 4, .bit_offset = 0, .bit_size = 3}));
  EXPECT_EQ(btf->member("s", "b"),
            (Member{.offset = 4, .size = 4, .bit_offset = 19, .bit_size = 5}));
  EXPECT_EQ(btf->member("s", "c"),
            (Member{.offset = 9, .size = 1, .bit_offset = 5, .bit_size = 3}));
}

TEST(Btf, SizesOfEveryKind) {
  BtfBuilder b;
  const TypeId integer = b.integer("int", 4, 1);
  b.refer(BtfKind::typedef_name, b.array(b.pointer(integer), 3), "three_pointers");
  b.refer(BtfKind::typedef_name, b.prototype(integer, {}), "function_t");
  b.enumeration("color", {{"RED", 0}}, false);
  const auto btf = parsed(b);
  EXPECT_EQ(btf->size_of("int"), 4U);
  EXPECT_EQ(btf->size_of("three_pointers"), 24U);
  EXPECT_EQ(btf->size_of("enum color"), 4U);
  EXPECT_FALSE(btf->size_of("function_t"));
  EXPECT_FALSE(btf->size_of("absent"));
  EXPECT_FALSE(btf->size_of(TypeId{0}));
}

TEST(Btf, EnumeratorsKeepTheirSign) {
  BtfBuilder old_kernel;
  old_kernel.enumeration("e", {{"MINUS", 0xffffffff}, {"ONE", 1}}, false);
  EXPECT_EQ(parsed(old_kernel)->enumerator("MINUS"), -1);
  BtfBuilder b;
  b.enumeration("s", {{"MINUS", 0xffffffff}}, true);
  b.enumeration("u", {{"HIGH", 0xffffffff}}, false);
  b.enumeration("w", {{"WIDE", 1ULL << 40}}, false, 8);
  const auto btf = parsed(b);
  EXPECT_EQ(btf->enumerator("MINUS"), -1);
  EXPECT_EQ(btf->enumerator("HIGH"), 0xffffffff);
  EXPECT_EQ(btf->enumerator("WIDE"), 1LL << 40);
  EXPECT_FALSE(btf->enumerator("absent"));
}

TEST(Btf, OfTwoStructuresWithOneNameTheOneWithMembersIsMeant) {
  BtfBuilder b;
  const TypeId integer = b.integer("int", 4);
  b.structure("twice", 0, {});
  const TypeId real = b.structure("twice", 4, {{"x", integer, 0}});
  b.structure("twice", 8, {{"y", integer, 0}});
  const auto btf = parsed(b);
  EXPECT_EQ(btf->find("twice", BtfKind::structure), real);
  EXPECT_FALSE(btf->find("twice", BtfKind::union_type));
}

TEST(Btf, FunctionsHaveNamedParameters) {
  BtfBuilder b;
  const TypeId integer = b.integer("int", 4, 1);
  b.refer(BtfKind::function, b.prototype(integer, {{"fd", integer}, {"", 0}}), "do_it");
  const auto btf = parsed(b);
  const BtfType function = btf->type(*btf->find("do_it", BtfKind::function));
  const BtfType prototype = btf->type(function.target);
  ASSERT_EQ(prototype.count, 2U);
  EXPECT_EQ(prototype.target, integer);
  EXPECT_EQ(btf->parameter_at(prototype, 0).name, "fd");
  EXPECT_EQ(btf->parameter_at(prototype, 1).type, 0U);
}

TEST(Btf, SplitBtfContinuesItsBase) {
  BtfBuilder base_builder;
  const TypeId integer = base_builder.integer("int", 4);
  base_builder.structure("base_only", 4, {{"x", integer, 0}});
  const auto base = parsed(base_builder);
  BtfBuilder b(*base, base_builder.strings_size());
  b.structure("module_only", 8, {{"y", integer, 32}});
  b.structure("base_only", 8, {{"z", integer, 32}});
  const auto split = parsed(b, base.get());
  EXPECT_EQ(split->first_id(), base->end_id());
  EXPECT_EQ(split->member("module_only", "y")->offset, 4U);
  EXPECT_EQ(split->size_of("int"), 4U);
  EXPECT_EQ(split->type(integer).name, "int");
  EXPECT_TRUE(split->member("base_only", "z")) << "its own type comes first";
  EXPECT_FALSE(base->member("base_only", "z"));
}

TEST(Btf, ALongerHeaderIsHonoured) {
  BtfBuilder b;
  b.integer("int", 4);
  auto btf = Btf::parse(b.blob(32));
  ASSERT_TRUE(btf);
  EXPECT_EQ((*btf)->size_of("int"), 4U);
}

TEST(Btf, CyclesEnd) {
  BtfBuilder b;
  b.refer(BtfKind::typedef_name, 2, "a");               // 1 -> 2 -> 1
  b.refer(BtfKind::const_type, 1);                      // 2
  b.array(3, 2);                                        // 3, an array of itself
  b.structure("self", 8, {{"", 4, 0}, {"", 4, 0}});     // 4, holds itself twice, unnamed
  b.structure("deep", 8, {{"arr", 3, 0}, {"", 4, 0}});  // 5
  const auto btf = parsed(b);
  EXPECT_FALSE(btf->size_of("a"));
  EXPECT_EQ(btf->resolve(1).kind, BtfKind::void_type);
  EXPECT_FALSE(btf->size_of(TypeId{3}));
  EXPECT_FALSE(btf->member("self", "absent"));
  EXPECT_FALSE(btf->member("deep", "arr"));
  ask_everything(*btf);
}

TEST(Btf, RefusesWhatContradictsItself) {
  BtfBuilder b;
  const TypeId integer = b.integer("int", 4);
  b.structure("s", 4, {{"x", integer, 0}});
  const std::vector<std::byte> good = b.blob();
  ASSERT_TRUE(Btf::parse(good));
  const auto broken = [&](std::size_t at, std::uint32_t value) {
    std::vector<std::byte> bytes = good;
    std::memcpy(bytes.data() + at, &value, 4);
    auto result = Btf::parse(std::move(bytes));
    return result ? std::optional<ErrorCode>() : result.error().code;
  };
  EXPECT_EQ(broken(0, 0x0001eb9e), ErrorCode::bad_data) << "magic";
  EXPECT_EQ(broken(0, 0x0002eb9f), ErrorCode::unsupported) << "version";
  EXPECT_EQ(broken(4, 8), ErrorCode::bad_data) << "header too short";
  EXPECT_EQ(broken(4, 0xffffffff), ErrorCode::bad_data) << "header too long";
  EXPECT_EQ(broken(12, 0xfffffff0), ErrorCode::bad_data) << "types leave the blob";
  EXPECT_EQ(broken(12, 20), ErrorCode::bad_data) << "a type is cut off";
  EXPECT_EQ(broken(20, 3), ErrorCode::bad_data) << "strings not terminated";
  EXPECT_EQ(broken(20, 0), ErrorCode::bad_data) << "no strings";
  EXPECT_EQ(broken(24, 0xffff), ErrorCode::bad_data) << "a name outside";
  EXPECT_EQ(broken(24 + 4, 30u << 24), ErrorCode::unsupported) << "an unknown kind";
  EXPECT_EQ(broken(24 + 16 + 4, 4u << 24 | 0xffffff), ErrorCode::bad_data) << "members cut off";
  EXPECT_EQ(broken(24 + 16 + 12 + 4, 3), ErrorCode::bad_data) << "a member of no type";
}

TEST(Btf, EveryTruncationAndManyCorruptionsAreSurvived) {
  BtfBuilder b;
  const TypeId integer = b.integer("int", 4, 1);
  const TypeId array = b.array(integer, 4);
  const TypeId inner =
      b.composite(BtfKind::union_type, "", 16, {{"a", array, 0}, {"b", integer, 0}});
  b.structure("s", 24, {{"", inner, 0}, {"p", b.pointer(integer), 128}, {"f", integer, 128, 5}});
  b.enumeration("e", {{"E", 1}}, false);
  b.enumeration("e64", {{"E64", 1}}, true, 8);
  b.refer(BtfKind::function, b.prototype(integer, {{"x", integer}}), "f");
  b.section(".data..percpu", {b.variable("v", integer)});
  const std::vector<std::byte> good = b.blob();
  for (std::size_t size = 0; size < good.size(); ++size) {
    static_cast<void>(Btf::parse({good.begin(), good.begin() + static_cast<long>(size)}));
  }
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::byte> bytes = good;
    for (int i = 0; i < 1 + round % 4; ++i) {
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    }
    if (auto btf = Btf::parse(std::move(bytes))) ask_everything(**btf);
  }
}

TEST(Btf, OneMillionTypesOfOneNameCostNothingSpecial) {
  BtfBuilder b;
  for (int i = 0; i < 1 << 20; ++i) b.refer(BtfKind::forward, 0, i == 0 ? "x" : "");
  std::vector<std::byte> bytes = b.blob();
  const std::uint32_t name = 1;
  for (std::size_t i = 0; i < 1 << 20; ++i) std::memcpy(bytes.data() + 24 + i * 12, &name, 4);
  auto btf = Btf::parse(std::move(bytes));
  ASSERT_TRUE(btf);
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE((*btf)->find_type("x"));
}

TEST(Btf, TheHostsOwnBlobIfItHasOne) {
  const std::filesystem::path path = "/sys/kernel/btf/vmlinux";
  std::ifstream file(path, std::ios::binary);
  if (!file) GTEST_SKIP() << "this host's kernel has no " << path;
  const std::string text(std::istreambuf_iterator<char>(file), {});
  std::vector<std::byte> blob(text.size());
  std::memcpy(blob.data(), text.data(), text.size());
  auto btf = Btf::parse(std::move(blob));
  ASSERT_TRUE(btf) << btf.error().message;
  EXPECT_EQ((*btf)->member("list_head", "prev")->offset, 8U);
  EXPECT_EQ((*btf)->member("task_struct", "comm")->count, 16U);
  EXPECT_GT(*(*btf)->size_of("task_struct"), 1000U);
  EXPECT_EQ((*btf)->enumerator("PIDTYPE_TGID"), 1);
}

}  // namespace
}  // namespace vmsight::kernel_btf_test
