#include "support/synthetic_kallsyms.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <numeric>

#include <fmt/format.h>

namespace vmsight::test {
namespace {

using Encoding = KallsymsLayout::Encoding;

/// Characters stand for themselves; the numbers of others for frequent pieces of names.
std::array<std::string, 256> make_tokens() {
  std::array<std::string, 256> tokens;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool printable = i > ' ' && i < 0x7f;
    tokens[i] = printable ? std::string(1, static_cast<char>(i)) : fmt::format("~{}~", i);
  }
  tokens[200] = "fil";
  tokens[201] = "Tfiller_0";
  tokens[202] = "a_token_that_is_longer_than_one_copy_step";  // 41 characters
  tokens[203] = "__";
  tokens[204] = "init";
  return tokens;
}

class Builder {
 public:
  explicit Builder(const KallsymsSpec& spec) : spec_(spec), tokens_(make_tokens()) {
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (!tokens_[i].empty() && tokens_[i].find('~') == std::string::npos)
        by_text_[tokens_[i]] = static_cast<std::uint8_t>(i);
    }
  }

  BuiltKallsyms build() {
    layout_.count = static_cast<std::uint32_t>(spec_.symbols.size());
    layout_.encoding = spec_.encoding;
    if (spec_.order == TableOrder::fresh) {
      add_names();
      add_tokens();
      add_offsets();
      add_seqs();
    } else {
      add_offsets();
      add_names();
      if (spec_.order == TableOrder::old_with_seqs) add_seqs();
      add_tokens();
    }
    layout_.size = static_cast<std::uint32_t>(bytes_.size());
    return {std::move(bytes_), layout_};
  }

 private:
  /// 4 where the newest kernels use 4.
  std::size_t alignment() const { return spec_.encoding == Encoding::from_slot ? 4 : 8; }

  void align() { bytes_.resize((bytes_.size() + alignment() - 1) / alignment() * alignment()); }

  std::uint32_t position() {
    align();
    return static_cast<std::uint32_t>(bytes_.size());
  }

  template <typename T>
  void put(T value) {
    const auto raw = std::as_bytes(std::span(&value, 1));
    bytes_.insert(bytes_.end(), raw.begin(), raw.end());
  }
  void put_byte(std::size_t value) { bytes_.push_back(static_cast<std::byte>(value)); }

  std::vector<std::uint8_t> compress(const std::string& text) const {
    std::vector<std::uint8_t> result;
    for (std::size_t at = 0; at < text.size();) {
      std::size_t length = std::min<std::size_t>(text.size() - at, 48);
      while (!by_text_.contains(text.substr(at, length))) --length;
      result.push_back(by_text_.at(text.substr(at, length)));
      at += length;
    }
    return result;
  }

  void add_names() {
    put(layout_.count);
    layout_.names = position();
    std::vector<std::uint64_t> markers;
    for (std::size_t i = 0; i < spec_.symbols.size(); ++i) {
      if (i % 256 == 0) markers.push_back(bytes_.size() - layout_.names);
      const auto name = compress(spec_.symbols[i].type + spec_.symbols[i].name);
      put_byte(name.size() < 128 ? name.size() : (name.size() & 0x7f) | 0x80);
      if (name.size() >= 128) put_byte(name.size() >> 7);
      for (const std::uint8_t token : name) put_byte(token);
    }
    layout_.names_size = static_cast<std::uint32_t>(bytes_.size() - layout_.names);
    align();
    for (const std::uint64_t marker : markers) {
      if (spec_.marker_width == 8) {
        put(marker);
      } else {
        put(static_cast<std::uint32_t>(marker));
      }
    }
  }

  void add_tokens() {
    layout_.token_table = position();
    std::array<std::uint16_t, 256> index;
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      index[i] = static_cast<std::uint16_t>(bytes_.size() - layout_.token_table);
      for (const char c : tokens_[i]) put_byte(static_cast<unsigned char>(c));
      put_byte(0);
    }
    layout_.token_index = position();
    for (const std::uint16_t start : index) put(start);
  }

  std::uint32_t offset_of(const SyntheticSymbol& symbol) const {
    if (spec_.encoding == Encoding::from_slot)
      return static_cast<std::uint32_t>(spec_.text + symbol.value - bytes_.size());
    if (spec_.encoding == Encoding::from_base || symbol.absolute)
      return static_cast<std::uint32_t>(symbol.value);
    return static_cast<std::uint32_t>(-1 - static_cast<std::int64_t>(symbol.value));
  }

  void add_offsets() {
    layout_.offsets = position();
    for (const SyntheticSymbol& symbol : spec_.symbols) put(offset_of(symbol));
    if (spec_.encoding == Encoding::from_slot) return;
    layout_.relative_base = position();
    put(spec_.text);
  }

  void add_seqs() {
    std::vector<std::uint32_t> order(layout_.count);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [this](std::uint32_t a, std::uint32_t b) {
      return spec_.symbols[a].name < spec_.symbols[b].name;
    });
    layout_.seqs = position();
    for (const std::uint32_t i : order) {
      put_byte(i >> 16 & 0xff);
      put_byte(i >> 8 & 0xff);
      put_byte(i & 0xff);
    }
  }

  const KallsymsSpec& spec_;
  std::array<std::string, 256> tokens_;
  std::map<std::string, std::uint8_t> by_text_;
  std::vector<std::byte> bytes_;
  KallsymsLayout layout_;
};

}  // namespace

BuiltKallsyms build_kallsyms(const KallsymsSpec& spec) { return Builder(spec).build(); }

std::vector<SyntheticSymbol> filler_symbols(std::size_t count, std::uint64_t start) {
  std::vector<SyntheticSymbol> symbols;
  for (std::size_t i = 0; i < count; ++i)
    symbols.push_back({fmt::format("filler_{:04}", i), 'T', start + i * 16});
  return symbols;
}

}  // namespace vmsight::test
