// kallsyms: the compressed symbol table that every Linux kernel carries in its read-only data.
// Pure functions over bytes copied from the guest; everything is bounded and untrusted.
//
//   offsets        n signed 32-bit numbers, ascending addresses; three encodings, see below
//   relative_base  u64, what they count from (absent in the newest kernels)
//   num_syms       u32 n
//   names          n times: ULEB128 length, then that many token numbers; the first expanded
//                  character is the type letter
//   markers        position in names of every 256th symbol, u32 (u64 before Linux 4.20)
//   seqs_of_names  n big-endian 24-bit numbers: the symbols in the order of their names
//   token_table    256 NUL-terminated strings
//   token_index    256 u16: where each begins in token_table
//
//   old order   offsets relative_base num_syms names markers [seqs] token_table token_index
//   new order   num_syms names markers token_table token_index offsets [relative_base] [seqs]
//
// Written by scripts/kallsyms.c of the Linux sources, read by its kernel/kallsyms.c.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "vmsight/result.h"

namespace vmsight {

/// Where a symbol is, without KASLR.
struct SymbolValue {
  std::uint64_t value = 0;  // distance from _text modulo 2^64; if `absolute`, the address itself
  bool absolute = false;    // per-CPU offsets of kernels that count them from zero
  char type = '?';
  friend bool operator==(const SymbolValue&, const SymbolValue&) = default;
};

/// Where the tables lie: positions in bytes from the first of them. Position independent, so it
/// can be kept for the next boot of the same build.
struct KallsymsLayout {
  enum class Encoding : std::uint8_t {
    from_base,        // address = base + unsigned offset
    absolute_percpu,  // >= 0: the value itself; < 0: address = base - 1 - offset
    from_slot,        // address = address of the offset's own slot + offset
  };
  std::uint32_t count = 0;
  Encoding encoding = Encoding::from_slot;
  std::uint32_t names = 0, names_size = 0;
  std::uint32_t token_table = 0, token_index = 0;
  std::uint32_t offsets = 0;
  std::uint32_t relative_base = 0;  // meaningless for from_slot
  std::uint32_t seqs = 0;           // 0 if there are none
  std::uint32_t size = 0;           // of all together
  friend bool operator==(const KallsymsLayout&, const KallsymsLayout&) = default;
};

struct FoundKallsyms {
  std::size_t start = 0;  // of the first table, within the searched bytes
  KallsymsLayout layout;
};

inline constexpr std::size_t max_symbol_name = 512;  // KSYM_NAME_LEN
inline constexpr std::uint32_t max_symbols = 1U << 20;
inline constexpr std::size_t max_decoded_text = 64U << 20;  // of all names together

/// The 256 strings, and the index behind them; as positions in the searched bytes.
struct TokenTable {
  std::size_t start = 0, index = 0;
};

/// The next token table from `from` on: 256 strings whose index follows and agrees. To find the
/// one after it, search from its index on.
std::optional<TokenTable> find_token_table(std::span<const std::byte> bytes, std::size_t from = 0);

/// The other tables around a token table that was found in these bytes. bad_data if they
/// contradict each other, or leave the bytes given. `bytes` must begin at an address that is a
/// multiple of 8.
Result<FoundKallsyms> locate_kallsyms(std::span<const std::byte> bytes, const TokenTable& tokens);

class Kallsyms {
 public:
  /// `tables` are layout.size bytes that begin with the first table.
  static Result<Kallsyms> load(std::vector<std::byte> tables, const KallsymsLayout& layout);

  std::uint32_t count() const { return layout_.count; }
  const KallsymsLayout& layout() const { return layout_; }

  /// Position of _text relative to the first table, modulo 2^64; from_slot only.
  std::optional<std::uint64_t> text_position() const;

  /// By name; of several the first by address.
  std::optional<SymbolValue> find(std::string_view name) const;

  /// Calls `visit` with all symbols in the kernel's own order; names are placed in `text`.
  using Visit = std::function<void(std::string_view name, const SymbolValue& value)>;
  using Text = std::vector<std::unique_ptr<char[]>>;  // blocks; strings in them stay where they are
  void decode(Text& text, const Visit& visit) const;

 private:
  struct Token {
    std::uint32_t start = 0, length = 0;  // within token_text_
  };
  /// Room for a type letter, a name, and the slack that expand() writes into.
  using NameBuffer = std::array<char, 1 + max_symbol_name + 16>;

  Kallsyms() = default;
  Result<void> check_layout() const;
  Result<void> load_tokens();
  Result<void> load_names();
  void hash_names();
  Result<void> find_text();
  std::size_t expand(std::uint32_t index, char* into) const;
  std::string_view name(std::uint32_t index, NameBuffer& buffer) const;
  std::optional<std::uint32_t> search_sorted(std::string_view name) const;
  std::optional<std::uint32_t> search_hashed(std::string_view name) const;
  std::optional<std::uint32_t> search(std::string_view name) const;
  std::uint32_t symbol_in_name_order(std::uint32_t position) const;
  SymbolValue raw_value(std::uint32_t index) const;
  SymbolValue value(std::uint32_t index) const;

  std::vector<std::byte> tables_;
  KallsymsLayout layout_;
  std::uint64_t base_ = 0;        // relative_base as found
  std::uint64_t text_ = 0;        // raw value of _text
  std::vector<char> token_text_;  // padded: see expand()
  std::array<Token, 256> tokens_{};
  std::vector<std::uint32_t> name_starts_;  // of each symbol, within tables_
  // Without seqs_of_names: symbols by hash of the name, ascending within a bucket.
  std::vector<std::uint32_t> bucket_starts_, by_hash_;
};

}  // namespace vmsight
