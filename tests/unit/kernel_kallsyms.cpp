#include "kernel/kallsyms.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "support/synthetic_kallsyms.h"

namespace vmsight::kernel_kallsyms_test {
namespace {

using test::build_kallsyms;
using test::BuiltKallsyms;
using test::KallsymsSpec;
using test::TableOrder;
using Encoding = KallsymsLayout::Encoding;

/// Names of all sorts: long ones, with prefixes of each other, twice the same.
KallsymsSpec spec_of(TableOrder order, Encoding encoding) {
  KallsymsSpec spec{.order = order, .encoding = encoding};
  if (encoding == Encoding::absolute_percpu) {
    spec.symbols.push_back({"__per_cpu_start", 'A', 0, true});
    spec.symbols.push_back({"cpu_number", 'A', 0x1a000, true});
  }
  spec.symbols.push_back({"_text", 'T', 0});
  for (auto& filler : test::filler_symbols(1000, 0x1000)) spec.symbols.push_back(filler);
  spec.symbols.push_back({"twice", 't', 0x100000});
  spec.symbols.push_back({"twice", 't', 0x100010});
  spec.symbols.push_back({"a_token_that_is_longer_than_one_copy_step", 't', 0x100020});
  spec.symbols.push_back({std::string(300, 'x') + "_needs_two_bytes", 'd', 0x100030});
  spec.symbols.push_back({"__init", 'b', 0x200000});
  spec.symbols.push_back({"_end", 'B', 0x300000});
  if (encoding == Encoding::from_slot) spec.text = 0 - std::uint64_t{0x50000};
  return spec;
}

/// Tables amid other bytes, as in a kernel's read-only data.
struct Window {
  std::vector<std::byte> bytes;
  std::size_t start = 0;
};
Window surround(const BuiltKallsyms& built) {
  Window window;
  std::mt19937 random(1);
  window.start = 0x2340;
  for (std::size_t i = 0; i < window.start; ++i)
    window.bytes.push_back(static_cast<std::byte>(random()));
  window.bytes.insert(window.bytes.end(), built.bytes.begin(), built.bytes.end());
  for (std::size_t i = 0; i < 5000; ++i) window.bytes.push_back(static_cast<std::byte>(random()));
  return window;
}

struct Shape {
  const char* name;
  TableOrder order;
  Encoding encoding;
  std::size_t marker_width = 4;
};

class KallsymsTest : public testing::TestWithParam<Shape> {
 protected:
  KallsymsTest() { spec.marker_width = GetParam().marker_width; }
  KallsymsSpec spec = spec_of(GetParam().order, GetParam().encoding);
  BuiltKallsyms built = build_kallsyms(spec);
  Window window = surround(built);
};
INSTANTIATE_TEST_SUITE_P(
    Shapes, KallsymsTest,
    testing::Values(Shape{"linux_4_19", TableOrder::old, Encoding::absolute_percpu, 8},
                    Shape{"linux_5_10", TableOrder::old, Encoding::absolute_percpu},
                    Shape{"linux_6_1", TableOrder::old_with_seqs, Encoding::absolute_percpu},
                    Shape{"linux_6_12", TableOrder::fresh, Encoding::absolute_percpu},
                    Shape{"linux_6_16", TableOrder::fresh, Encoding::from_base},
                    Shape{"linux_7_2", TableOrder::fresh, Encoding::from_slot}),
    [](const auto& shape) { return std::string(shape.param.name); });

TEST_P(KallsymsTest, LocatesTheTables) {
  const auto tokens = find_token_table(window.bytes);
  ASSERT_TRUE(tokens);
  EXPECT_EQ(tokens->start, window.start + built.layout.token_table);
  EXPECT_EQ(tokens->index, window.start + built.layout.token_index);
  EXPECT_FALSE(find_token_table(window.bytes, tokens->index));
  const auto found = locate_kallsyms(window.bytes, *tokens);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->start, window.start);
  EXPECT_EQ(found->layout, built.layout);
}

TEST_P(KallsymsTest, ZerosBehindTheTablesAreNotTakenForOffsets) {
  std::vector<std::byte> bytes(built.bytes);
  bytes.resize(bytes.size() + 8192);
  const auto tokens = find_token_table(bytes);
  ASSERT_TRUE(tokens);
  const auto found = locate_kallsyms(bytes, *tokens);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->layout, built.layout);
}

TEST_P(KallsymsTest, DecodesEverySymbol) {
  const auto tables = Kallsyms::load(built.bytes, built.layout);
  ASSERT_TRUE(tables) << tables.error().message;
  Kallsyms::Text text;
  std::size_t i = 0;
  tables->decode(text, [&](std::string_view name, const SymbolValue& value) {
    ASSERT_LT(i, spec.symbols.size());
    const auto& expected = spec.symbols[i++];
    EXPECT_EQ(name, expected.name);
    EXPECT_EQ(value, (SymbolValue{expected.value, expected.absolute, expected.type})) << name;
  });
  EXPECT_EQ(i, spec.symbols.size());
}

TEST_P(KallsymsTest, FindsByName) {
  const auto tables = Kallsyms::load(built.bytes, built.layout);
  ASSERT_TRUE(tables) << tables.error().message;
  std::map<std::string, SymbolValue> first;
  for (const auto& symbol : spec.symbols)
    first.try_emplace(symbol.name, SymbolValue{symbol.value, symbol.absolute, symbol.type});
  for (const auto& [name, value] : first) EXPECT_EQ(tables->find(name), value) << name;
  for (const char* absent : {"", "a", "filler_", "filler_99999", "zzz", "twic", "twice_"})
    EXPECT_EQ(tables->find(absent), std::nullopt) << absent;
}

TEST_P(KallsymsTest, DamageIsAnErrorOrANonsenseAnswerNothingWorse) {
  std::mt19937 random(2);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> bytes = window.bytes;
    for (int i = 0; i < 4; ++i)
      bytes[window.start + random() % built.bytes.size()] = static_cast<std::byte>(random());
    const auto tokens = find_token_table(bytes);
    if (!tokens) continue;
    const auto found = locate_kallsyms(bytes, *tokens);
    if (!found) continue;
    const auto part = std::span(bytes).subspan(found->start, found->layout.size);
    const auto tables = Kallsyms::load({part.begin(), part.end()}, found->layout);
    if (!tables) continue;
    Kallsyms::Text text;
    tables->decode(text, [](std::string_view, const SymbolValue&) {});
    static_cast<void>(tables->find("twice"));
  }
}

TEST_P(KallsymsTest, TablesCutShortAreNotFound) {
  const std::size_t whole = window.start + built.bytes.size();
  for (std::size_t size = 0; size < whole; size += 997) {
    const auto bytes = std::span(window.bytes).first(size);
    const auto tokens = find_token_table(bytes);
    if (!tokens) continue;
    const auto found = locate_kallsyms(bytes, *tokens);
    if (!found) continue;
    EXPECT_EQ(found->layout.seqs, 0U) << "only the last table may be missing";
  }
}

TEST(KallsymsLayoutTest, LayoutsThatLeaveTheTablesAreRefused) {
  const auto built = build_kallsyms(spec_of(TableOrder::fresh, Encoding::from_slot));
  const auto load = [&](auto change) {
    KallsymsLayout layout = built.layout;
    change(layout);
    return Kallsyms::load(built.bytes, layout).has_value();
  };
  EXPECT_TRUE(load([](KallsymsLayout&) {}));
  EXPECT_FALSE(load([](KallsymsLayout& l) { l.count = 0; }));
  EXPECT_FALSE(load([](KallsymsLayout& l) { l.count = max_symbols + 1; }));
  EXPECT_FALSE(load([](KallsymsLayout& l) { l.count *= 2; }));
  EXPECT_FALSE(load([](KallsymsLayout& l) { l.names = UINT32_MAX; }));
  EXPECT_FALSE(load([](KallsymsLayout& l) { l.names_size = UINT32_MAX; }));
  EXPECT_FALSE(load([](KallsymsLayout& l) { l.offsets = l.size - 8; }));
  EXPECT_FALSE(load([](KallsymsLayout& l) { l.seqs = l.size - 8; }));
  EXPECT_FALSE(load([](KallsymsLayout& l) { l.token_index = l.token_table; }));
  EXPECT_FALSE(load([](KallsymsLayout& l) { l.token_table = l.token_index - 1; }));
  EXPECT_FALSE(load([](KallsymsLayout& l) { l.size += 1; }));
}

TEST(KallsymsForgeryTest, MillionsOfNeedlesDoNotHang) {
  std::vector<std::byte> bytes;
  while (bytes.size() < (4U << 20)) {
    for (char c = '0'; c <= '9'; ++c) {
      bytes.push_back(static_cast<std::byte>(c));
      bytes.push_back(std::byte{0});
    }
  }
  EXPECT_FALSE(find_token_table(bytes));
}

}  // namespace
}  // namespace vmsight::kernel_kallsyms_test
