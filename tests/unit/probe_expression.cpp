#include "probe/expression.h"

#include <gtest/gtest.h>

#include <cstring>

#include "support/btf_builder.h"
#include "support/typed_kernel.h"

namespace vmsight::probe_expression_test {
namespace {

using namespace test;

std::unique_ptr<Btf> make_types() {
  BtfBuilder b;
  const TypeId integer = b.integer("int", 4, 1);
  const TypeId u32 = b.refer(BtfKind::typedef_name, b.integer("unsigned int", 4), "u32");
  const TypeId u64 = b.refer(BtfKind::typedef_name, b.integer("long unsigned int", 8), "u64");
  b.refer(BtfKind::typedef_name, integer, "s32");
  const TypeId character = b.integer("char", 1, 1);
  const TypeId text = b.pointer(b.refer(BtfKind::const_type, character));
  const TypeId color = b.enumeration("color", {{"RED", 1}, {"BLUE", 5}}, false);
  const TypeId buffer = b.structure("buffer", 16, {{"ops", u64, 0}, {"flags", u32, 64}});
  const TypeId pipe = b.structure(
      "pipe", 24,
      {{"head", u32, 0}, {"size", u32, 32}, {"bufs", b.pointer(buffer), 64}, {"name", text, 128}});
  const TypeId inner = b.structure("inner", 16, {{"x", u64, 0}, {"pipe", b.pointer(pipe), 64}});
  const TypeId file = b.structure("file", 48,
                                  {{"inner", inner, 0},
                                   {"next", b.pointer(inner), 128},
                                   {"comm", b.array(character, 16), 192},
                                   {"color", color, 320},
                                   {"size", integer, 352}});
  b.structure("task_struct", 16, {{"flags", u64, 0}, {"file", b.pointer(file), 64}});
  b.refer(
      BtfKind::function,
      b.prototype(integer,
                  {{"file", b.pointer(file)}, {"count", integer}, {"raw", u64}, {"name", text}}),
      "plain");
  auto btf = Btf::parse(b.blob());
  return btf ? *std::move(btf) : nullptr;
}

class Expressions : public ::testing::Test {
 protected:
  Expressions()
      : kernel_(guest_.space(), make_types()),
        space_(guest_.space()),
        reader_(guest_.memory(), space_) {}

  Result<FunctionPlan> plan(std::vector<ProbeField> fields) {
    FunctionPlan plan = plan_function(kernel_, reader_, {.function = "plain"});
    VMSIGHT_TRY_VOID(plan_fields(kernel_, fields, plan));
    return plan;
  }
  Result<FunctionPlan> plan(const std::string& expression) {
    return plan(std::vector<ProbeField>{{"f", expression}});
  }
  const ProbeFetch& fetch_of(const FunctionPlan& plan) {
    return plan.fetches[plan.arguments.back().value];
  }
  /// With these values for what is fetched behind the four arguments.
  static std::optional<std::uint64_t> value(const FunctionPlan& plan, std::vector<Fetched> more,
                                            std::vector<std::uint64_t> arguments = {1, 2, 3, 4}) {
    Hit hit;
    for (const std::uint64_t number : arguments)
      hit.fetched.push_back({.ok = true, .value = number});
    for (Fetched& one : more) hit.fetched.push_back(std::move(one));
    const ProbeValue found = decode_arguments(plan, hit).back();
    return found.known ? std::optional(found.number) : std::nullopt;
  }
  static Fetched number(std::uint64_t value) { return {.ok = true, .value = value}; }
  static Fetched bytes(std::string bytes) {
    return {.ok = true, .value = 1, .bytes = std::move(bytes)};
  }
  std::string wrong(const std::string& expression) {
    const auto made = plan(expression);
    return made ? "it is right" : made.error().message;
  }

  SyntheticGuest guest_;
  TypedKernel kernel_;
  AddressSpace space_;
  Reader reader_;
};

TEST_F(Expressions, AMemberIsOneFetchThatEnginesKnow) {
  const auto made = plan("file->next->pipe->head");
  ASSERT_TRUE(made) << made.error().message;
  const ProbeFetch& fetch = fetch_of(*made);
  EXPECT_EQ(fetch.what, ProbeFetch::What::value);
  EXPECT_EQ(fetch.base, reg::rdi);
  EXPECT_EQ(fetch.step_count, 3);
  EXPECT_EQ(fetch.steps, (std::array<std::int32_t, 3>{16, 8, 0}));
  EXPECT_EQ(made->arguments.back().bits, 32);
  EXPECT_TRUE(filter_names(*made, false)("f"));
  EXPECT_EQ(value(*made, {number(0xffffffff00000007)}), 7u);
}

TEST_F(Expressions, NestedMembersCastsAndAddresses) {
  const auto nested = plan("(*file).inner.x");
  ASSERT_TRUE(nested);
  EXPECT_EQ(fetch_of(*nested).steps[0], 0);
  const auto cast = plan("((struct pipe *)raw)->size");
  ASSERT_TRUE(cast) << cast.error().message;
  EXPECT_EQ(fetch_of(*cast).base, reg::rdx);
  EXPECT_EQ(fetch_of(*cast).steps[0], 4);
  const auto by_number = plan("((struct file *)arg2)[2].size");
  ASSERT_TRUE(by_number) << by_number.error().message;
  EXPECT_EQ(fetch_of(*by_number).steps[0], 2 * 48 + 44);
  const auto address = plan("&file->size");
  ASSERT_TRUE(address) << address.error().message;
  EXPECT_EQ(fetch_of(*address).offset, 44);
  EXPECT_EQ(fetch_of(*address).step_count, 0);
  const auto task = plan("current->file->size");
  ASSERT_TRUE(task) << task.error().message;
  EXPECT_EQ(fetch_of(*task).base, ProbeFetch::of_task);
}

TEST_F(Expressions, TextsAndEnumerators) {
  const auto text = plan("file->next->pipe->name");
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(fetch_of(*text).what, ProbeFetch::What::string);
  EXPECT_EQ(fetch_of(*text).step_count, 3);
  const auto beyond = plan("file->next->pipe->bufs->ops");  // has no room for a fourth step
  ASSERT_TRUE(beyond) << beyond.error().message;
  EXPECT_EQ(beyond->fetches.back().what, ProbeFetch::What::bytes);
  const auto shorter = plan("file->inner.pipe->name");
  ASSERT_TRUE(shorter) << shorter.error().message;
  EXPECT_EQ(fetch_of(*shorter).what, ProbeFetch::What::string);
  const auto comm = plan("file->comm");
  ASSERT_TRUE(comm);
  EXPECT_EQ(fetch_of(*comm).what, ProbeFetch::What::string);
  EXPECT_EQ(fetch_of(*comm).size, 16);
  EXPECT_EQ(fetch_of(*comm).offset, 24);
  const auto color = plan("file->color");
  ASSERT_TRUE(color);
  EXPECT_EQ(color->arguments.back().shape, ArgumentPlan::Shape::enumerator);
}

TEST_F(Expressions, ComputesAsCDoes) {
  const std::pair<const char*, std::uint64_t> all[] = {
      {"1 + 2 * 3", 7},         {"(1 + 2) * 3", 9},
      {"10 - 4 - 3", 3},        {"1 << 4 | 1", 17},
      {"7 & 3 == 3", 1},        {"-1 < 0", 1},
      {"!0 + !5", 1},           {"~0 == -1", 1},
      {"0x10 >> 2", 4},         {"-8 >> 1", -4ULL},
      {"1 == 1 && 2 > 3", 0},   {"0 || 5", 1},
      {"7 / 2 % 2", 1},         {"(s32)0xffffffff", -1ULL},
      {"(u32)-1", 0xffffffff},  {"be32(0x01020304)", 0x04030201},
      {"be16(0x0102)", 0x0201}, {"raw > -1", 0},
      {"count - 5", -3ULL},     {"raw * raw", 9},
  };
  for (const auto& [text, expected] : all) {
    const auto made = plan(text);
    ASSERT_TRUE(made) << text << ": " << made.error().message;
    EXPECT_EQ(value(*made, {number(2 - 5ULL)}), expected) << text;
  }
}

TEST_F(Expressions, AnElementIsFoundWhenItIsHit) {
  const auto made = plan("file->inner.pipe->bufs[raw & 1].flags");
  ASSERT_TRUE(made) << made.error().message;
  const ProbeFetch& block = made->fetches[4];
  EXPECT_EQ(block.what, ProbeFetch::What::bytes);
  EXPECT_EQ(block.step_count, 2);
  EXPECT_EQ(block.size, 1024);
  std::string two(32, '\0');
  two[8] = 5;
  two[24] = 6;
  EXPECT_EQ(value(*made, {bytes(two)}, {1, 2, 3, 4}), 6u);
  EXPECT_EQ(value(*made, {bytes(two)}, {1, 2, 2, 4}), 5u);
  EXPECT_EQ(value(*made, {bytes(two.substr(0, 20))}, {1, 2, 3, 4}), std::nullopt);
  const auto far = plan("file->inner.pipe->bufs[raw].flags");
  ASSERT_TRUE(far);
  EXPECT_EQ(value(*far, {bytes(two)}, {1, 2, ~0ULL, 4}), std::nullopt);
}

TEST_F(Expressions, WhatIsNotThereIsNotComputed) {
  const auto sum = plan("file->size + 1");
  ASSERT_TRUE(sum);
  EXPECT_EQ(value(*sum, {Fetched{}}), std::nullopt);
  const auto either = plan("count == 2 || file->size");
  ASSERT_TRUE(either);
  EXPECT_EQ(value(*either, {Fetched{}}), 1u);  // one that decides needs no other
  const auto divided = plan("count / raw");
  ASSERT_TRUE(divided);
  EXPECT_EQ(value(*divided, {}, {1, 2, 0, 4}), std::nullopt);
}

TEST_F(Expressions, AttributesOfNetlink) {
  const auto made = plan("nla_u32((void *)raw, 2, 1)");
  ASSERT_TRUE(made) << made.error().message;
  const auto attribute = [](std::uint16_t type, std::string payload) {
    std::string made(4, '\0');
    const auto size = static_cast<std::uint16_t>(4 + payload.size());
    std::memcpy(made.data(), &size, 2);
    std::memcpy(made.data() + 2, &type, 2);
    made += payload;
    made.resize((made.size() + 3) / 4 * 4);
    return made;
  };
  const std::string code = attribute(1, std::string("\x07\0\0\0", 4));
  const std::string nested =
      attribute(0x8003, attribute(7, "x") + attribute(0x8002, attribute(4, "yy") + code));
  EXPECT_EQ(value(*made, {bytes(nested + std::string(100, '\0'))}), 7u);
  EXPECT_EQ(value(*made, {bytes(attribute(3, attribute(5, code)))}), std::nullopt);
  // Lengths that are forged: none, more than there is, and none at all for ever.
  for (const char* forged : {"\0\0\x02\0", "\x03\0\x02\0", "\xff\xff\x02\0", "\x04\0\x09\0"}) {
    std::string all = attribute(3, std::string(forged, 4) + code);
    EXPECT_NO_FATAL_FAILURE(value(*made, {bytes(all)}));
    EXPECT_EQ(value(*made, {bytes(std::string(forged, 4))}), std::nullopt);
  }
  EXPECT_EQ(value(*made, {bytes("")}), std::nullopt);
}

TEST_F(Expressions, FieldsNameThoseBefore) {
  const auto made = plan({{"a", "file->inner.pipe"}, {"b", "a->head"}, {"c", "b + strlen(name)"}});
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_EQ(made->arguments.size(), 7u);
  EXPECT_TRUE(made->arguments[6].expression);
  EXPECT_FALSE(plan({{"b", "a->head"}, {"a", "file->inner.pipe"}}));
  std::vector<ProbeField> grows{{"x0", "raw + raw"}};
  for (int i = 1; i < 40; ++i)
    grows.push_back({fmt::format("x{}", i), fmt::format("x{0} + x{0}", i - 1)});
  EXPECT_FALSE(plan(grows));  // 2^40 parts
}

TEST_F(Expressions, SayWhatIsWrong) {
  EXPECT_NE(wrong("nothing->x").find("nothing is called 'nothing'"), std::string::npos);
  EXPECT_NE(wrong("file->none").find("struct file has no member \"none\""), std::string::npos);
  EXPECT_NE(wrong("count->x").find("no structure"), std::string::npos);
  EXPECT_NE(wrong("*count").find("is no pointer"), std::string::npos);
  EXPECT_NE(wrong("file->inner").find("is no number"), std::string::npos);
  EXPECT_NE(wrong("(struct none *)raw").find("no type \"struct none\""), std::string::npos);
  EXPECT_NE(wrong("&nothing").find("no symbol"), std::string::npos);
  EXPECT_NE(wrong("file + raw").find("only constants"), std::string::npos);
  EXPECT_NE(wrong("file[0x7fffffffffff].size").find("too far"), std::string::npos);
  EXPECT_NE(wrong("file - 0x8000000000000000").find("too far"), std::string::npos);
  EXPECT_NE(wrong("1 +").find("at character 4"), std::string::npos);
  EXPECT_NE(wrong("(1").find("not closed"), std::string::npos);
  EXPECT_NE(wrong("1 1").find("makes no sense"), std::string::npos);
  EXPECT_NE(wrong("unknown(1)").find("no function"), std::string::npos);
  EXPECT_NE(wrong(std::string(100, '(')).find("too deep"), std::string::npos);
  EXPECT_NE(wrong(std::string(100, '-') + "1").find("too deep"), std::string::npos);
  EXPECT_NE(wrong(std::string(2000, '1')).find("too long"), std::string::npos);
  std::string many = "1";
  for (int i = 0; i < 300; ++i) many += "+1";
  EXPECT_NE(wrong(many).find("too many parts"), std::string::npos);
}

}  // namespace
}  // namespace vmsight::probe_expression_test
