// Tables built in every order and encoding, then patched: whatever is located must load or be
// refused, decode within its bounds, and be searchable.
//
// Input: a byte for the shape, then patches {u16 where / 4, u8 count, bytes}.
#include "support/fuzz_input.h"
#include "support/synthetic_kallsyms.h"

namespace {

using namespace vmsight;
using test::TableOrder;
using Encoding = KallsymsLayout::Encoding;

constexpr struct {
  TableOrder order;
  Encoding encoding;
  std::size_t marker_width;
} shapes[] = {
    {TableOrder::old, Encoding::absolute_percpu, 8},
    {TableOrder::old, Encoding::absolute_percpu, 4},
    {TableOrder::old_with_seqs, Encoding::absolute_percpu, 4},
    {TableOrder::fresh, Encoding::absolute_percpu, 4},
    {TableOrder::fresh, Encoding::from_base, 4},
    {TableOrder::fresh, Encoding::from_slot, 4},
};

std::vector<test::BuiltKallsyms> build_all() {
  std::vector<test::BuiltKallsyms> all;
  for (const auto& shape : shapes) {
    test::KallsymsSpec spec{.order = shape.order,
                            .encoding = shape.encoding,
                            .marker_width = shape.marker_width,
                            .symbols = {{"_text", 'T', 0}}};
    for (auto& symbol : test::filler_symbols(520, 64)) spec.symbols.push_back(symbol);
    spec.symbols.push_back({std::string(200, 'y'), 'd', 0x10000});
    all.push_back(test::build_kallsyms(spec));
  }
  return all;
}

void use(const Kallsyms& tables) {
  Kallsyms::Text text;
  std::size_t characters = 0;
  tables.decode(text, [&](std::string_view name, const SymbolValue&) {
    for (const char c : name) characters += c != 0;
  });
  for (const char* name : {"_text", "filler_0100", "zzz", "A"})
    static_cast<void>(tables.find(name));
  static_cast<void>(tables.text_position());
}

/// In a buffer of exactly its size, so that a sanitizer sees every overrun.
void locate_and_use(const std::vector<std::byte>& bytes) {
  const auto tokens = find_token_table(bytes);
  if (!tokens) return;
  const auto found = locate_kallsyms(bytes, *tokens);
  if (!found) return;
  const auto part = std::span(bytes).subspan(found->start, found->layout.size);
  const auto tables = Kallsyms::load({part.begin(), part.end()}, found->layout);
  if (tables) use(*tables);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<test::BuiltKallsyms> all = build_all();
  test::FuzzInput input(data, size);
  const test::BuiltKallsyms& built = all[input.take<std::uint8_t>() % all.size()];
  std::vector<std::byte> bytes(64);
  bytes.insert(bytes.end(), built.bytes.begin(), built.bytes.end());
  while (!input.empty()) {
    const std::size_t at = input.take<std::uint16_t>() * std::size_t{4} % bytes.size();
    const auto patch = input.take_bytes(input.take<std::uint8_t>() % 32);
    std::copy_n(patch.begin(), std::min(patch.size(), bytes.size() - at),
                bytes.begin() + static_cast<std::ptrdiff_t>(at));
  }
  locate_and_use(bytes);
  // The layout as remembered, on tables that have become something else.
  const auto remembered = Kallsyms::load({bytes.begin() + 64, bytes.end()}, built.layout);
  if (remembered) use(*remembered);
  return 0;
}
