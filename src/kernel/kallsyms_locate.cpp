// Finding the kallsyms tables. The token table is the anchor: nothing else looks like it. The
// others are found by their distance from it and by agreeing with each other.
#include <algorithm>
#include <cstring>

#include "kernel/architecture.h"
#include "kernel/bytes.h"
#include "kernel/kallsyms.h"
#include "kernel/kallsyms_names.h"

namespace vmsight {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::size_t token_count = 256;
constexpr std::size_t index_size = token_count * 2;
constexpr std::size_t max_token_table = 8U << 10;
constexpr unsigned max_token_attempts = 4096;  // a guest can forge any number of needles
constexpr std::size_t group_size = 256;        // symbols per marker
constexpr std::size_t max_last_group = group_size * max_symbol_name;
constexpr std::size_t max_names_distance = 16U << 20;

/// Tokens '0' to '9' stand for themselves, in this order, in every kernel's table.
constexpr std::string_view digit_tokens("0\0001\0002\0003\0004\0005\0006\0007\0008\0009\0", 20);

/// Bounds the work that a forged table can cause: names walked, in all attempts together.
struct Budget {
  std::size_t names = 16U << 20;
};

/// The positions behind each of the tokens from '0' on; empty if they do not end.
std::optional<std::size_t> end_of_tokens(Bytes bytes, std::size_t at, std::size_t count) {
  const std::size_t limit = std::min(bytes.size(), at + max_token_table);
  for (std::size_t i = 0; i < count; ++i) {
    const void* end = std::memchr(bytes.data() + at, 0, limit - at);
    if (end == nullptr) return std::nullopt;
    at = static_cast<std::size_t>(static_cast<const std::byte*>(end) - bytes.data()) + 1;
  }
  return at;
}

/// Whether the index says where each of the strings from `table` on begins.
bool index_agrees(Bytes bytes, std::size_t table, std::size_t index) {
  std::size_t at = table;
  for (std::size_t i = 0; i < token_count; ++i) {
    if (load_le<std::uint16_t>(bytes, index + i * 2) != at - table) return false;
    const auto next = end_of_tokens(bytes, at, 1);
    if (!next || *next > index) return false;
    at = *next;
  }
  return index - at < 8;
}

std::optional<std::size_t> find_index(Bytes bytes, std::size_t tokens_end, std::size_t digits) {
  for (const std::size_t alignment : {4U, 8U}) {
    const std::size_t index = align_up(tokens_end, alignment);
    if (index + index_size > bytes.size()) continue;
    const auto before_digits = load_le<std::uint16_t>(bytes, index + '0' * 2);
    if (before_digits <= digits && index_agrees(bytes, digits - before_digits, index)) return index;
  }
  return std::nullopt;
}

std::optional<TokenTable> token_table_around(Bytes bytes, std::size_t digits) {
  const auto end = end_of_tokens(bytes, digits, token_count - '0');
  if (!end) return std::nullopt;
  const auto index = find_index(bytes, *end, digits);
  if (!index) return std::nullopt;
  return TokenTable{digits - load_le<std::uint16_t>(bytes, *index + '0' * 2), *index};
}

std::uint64_t load_marker(Bytes bytes, std::size_t at, std::size_t width) {
  return width == 8 ? load_le<std::uint64_t>(bytes, at) : load_le<std::uint32_t>(bytes, at);
}

struct Markers {
  std::size_t start = 0, count = 0, width = 4;
};

/// The end of `n` names if every 256th begins where the markers say.
std::optional<std::size_t> walk_names(Bytes bytes, std::size_t names, std::uint32_t n,
                                      const Markers& markers, Budget& budget) {
  std::size_t at = names;
  for (std::uint32_t i = 0; i < n; ++i) {
    const std::size_t marker = markers.start + i / group_size * markers.width;
    if (i % group_size == 0 && load_marker(bytes, marker, markers.width) != at - names)
      return std::nullopt;
    const auto next = skip_name(bytes, at, markers.start);
    if (!next || budget.names == 0) return std::nullopt;
    --budget.names;
    at = *next;
  }
  return at;
}

/// The same without knowing where the markers are: they follow the names.
std::optional<std::size_t> end_of_names(Bytes bytes, std::size_t names, std::uint32_t n,
                                        std::size_t limit, Budget& budget) {
  std::size_t at = names;
  for (std::uint32_t i = 0; i < n; ++i) {
    const auto next = skip_name(bytes, at, limit);
    if (!next || budget.names == 0) return std::nullopt;
    --budget.names;
    at = *next;
  }
  return at;
}

/// Each of 0 .. n-1 once, as big-endian 24-bit numbers.
bool is_permutation(Bytes bytes, std::size_t at, std::uint32_t n) {
  if (at > bytes.size() || std::size_t{n} * 3 > bytes.size() - at) return false;
  std::vector<bool> seen(n);
  for (std::uint32_t i = 0; i < n; ++i, at += 3) {
    const std::uint32_t value = std::to_integer<std::uint32_t>(bytes[at]) << 16 |
                                std::to_integer<std::uint32_t>(bytes[at + 1]) << 8 |
                                std::to_integer<std::uint32_t>(bytes[at + 2]);
    if (value >= n || seen[value]) return false;
    seen[value] = true;
  }
  return true;
}

std::size_t find_seqs(Bytes bytes, std::size_t behind, std::uint32_t n) {
  for (const std::size_t alignment : {4U, 8U}) {
    const std::size_t at = align_up(behind, alignment);
    if (is_permutation(bytes, at, n)) return at;
  }
  return 0;
}

/// An address that a kernel of any architecture may be linked for.
bool is_relative_base(std::uint64_t value) {
  return value % page_size == 0 &&
         std::ranges::any_of(architectures(), [value](const Architecture* architecture) {
           return value >= architecture->image_base.raw();
         });
}

/// Positions within the searched bytes; rebased to the first table at the end.
struct Tables {
  KallsymsLayout layout;
  std::size_t start = 0, end = 0;
};

/// Addresses ascend but for a few: tells a wrong reading of the offsets.
bool mostly_ascending(Bytes bytes, const KallsymsLayout& layout) {
  std::size_t descents = 0;
  const bool slots = layout.encoding == KallsymsLayout::Encoding::from_slot;
  const bool flips = layout.encoding == KallsymsLayout::Encoding::absolute_percpu;
  std::int64_t previous = INT64_MIN;
  for (std::uint32_t i = 0; i < layout.count; ++i) {
    std::int64_t value = load_le<std::int32_t>(bytes, layout.offsets + std::size_t{i} * 4);
    if (flips && value < 0) value = -value + INT32_MAX;
    if (slots) value += std::int64_t{i} * 4;
    descents += value < previous;
    previous = value;
  }
  return descents <= layout.count / 20;
}

bool has_negative_offset(Bytes bytes, const KallsymsLayout& layout) {
  for (std::uint32_t i = 0; i < layout.count; ++i) {
    if (load_le<std::int32_t>(bytes, layout.offsets + std::size_t{i} * 4) < 0) return true;
  }
  return false;
}

void set_base(Bytes bytes, KallsymsLayout& layout, std::size_t base) {
  layout.relative_base = static_cast<std::uint32_t>(base);
  layout.encoding = has_negative_offset(bytes, layout) ? KallsymsLayout::Encoding::absolute_percpu
                                                       : KallsymsLayout::Encoding::from_base;
}

/// num_syms names markers | token_table token_index | offsets [relative_base] [seqs]
class NewOrder {
 public:
  NewOrder(Bytes bytes, TokenTable tokens) : bytes_(bytes), tokens_(tokens) {}

  std::optional<Tables> locate() {
    if (!find_markers() || !find_names()) return std::nullopt;
    const std::size_t offsets = tokens_.index + index_size;
    const std::size_t n = tables_.layout.count;
    if (n * 4 > bytes_.size() - std::min(offsets, bytes_.size())) return std::nullopt;
    tables_.layout.offsets = static_cast<std::uint32_t>(offsets);
    tables_.end = offsets + n * 4;
    find_base();
    if (const std::size_t seqs = find_seqs(bytes_, tables_.end, tables_.layout.count)) {
      tables_.layout.seqs = static_cast<std::uint32_t>(seqs);
      tables_.end = seqs + n * 3;
    }
    return tables_;
  }

 private:
  /// Ascending from 0, and right before the token table but for padding.
  bool find_markers() {
    if (tokens_.start % 4 != 0 || tokens_.start < 12) return false;
    std::size_t at = tokens_.start - 4;
    if (load_le<std::uint32_t>(bytes_, at) == 0) at -= 4;
    const std::size_t last = at;
    last_marker_ = load_le<std::uint32_t>(bytes_, at);
    auto value = static_cast<std::uint32_t>(last_marker_);
    while (value != 0) {
      if (at < 4 || (last - at) / 4 > max_symbols / group_size) return false;
      at -= 4;
      const auto previous = load_le<std::uint32_t>(bytes_, at);
      if (previous >= value) return false;
      value = previous;
    }
    markers_ = {at, (last - at) / 4 + 1, 4};
    return markers_.count >= 2;
  }

  /// The last group of names ends at the markers, so its start bounds where the names begin.
  bool find_names() {
    if (markers_.start < last_marker_ + 8) return false;
    const std::size_t highest = (markers_.start - last_marker_) / 4 * 4 - 4;
    const std::size_t lowest = highest - std::min(highest, max_last_group);
    Budget budget;
    for (std::size_t at = highest;; at -= 4) {
      const auto n = load_le<std::uint32_t>(bytes_, at);
      if (n <= max_symbols && (n + group_size - 1) / group_size == markers_.count &&
          (names_at(at, at + 4, n, budget) || names_at(at, align_up(at + 4, 8), n, budget)))
        return true;
      if (at < lowest + 4) return false;
    }
  }

  bool names_at(std::size_t start, std::size_t names, std::uint32_t n, Budget& budget) {
    const auto end = walk_names(bytes_, names, n, markers_, budget);
    if (!end || markers_.start - *end >= 8) return false;
    tables_.start = start;
    tables_.layout.count = n;
    tables_.layout.names = static_cast<std::uint32_t>(names);
    tables_.layout.names_size = static_cast<std::uint32_t>(*end - names);
    return true;
  }

  void find_base() {
    const std::size_t at = align_up(tables_.end, 8);
    const bool has_base =
        at + 8 <= bytes_.size() && is_relative_base(load_le<std::uint64_t>(bytes_, at));
    if (!has_base) {
      tables_.layout.encoding = KallsymsLayout::Encoding::from_slot;
      return;
    }
    set_base(bytes_, tables_.layout, at);
    tables_.end = at + 8;
  }

  Bytes bytes_;
  TokenTable tokens_;
  Markers markers_;
  std::size_t last_marker_ = 0;  // as wide as what it is added to: a guest may say 2^32 - 1
  Tables tables_;
};

/// offsets relative_base num_syms names markers [seqs] | token_table token_index
class OldOrder {
 public:
  OldOrder(Bytes bytes, TokenTable tokens) : bytes_(bytes), tokens_(tokens) {}

  std::optional<Tables> locate() {
    if (tokens_.start < 24) return std::nullopt;
    const std::size_t highest = tokens_.start / 8 * 8 - 24;
    const std::size_t lowest = highest - std::min(highest, max_names_distance);
    Budget budget;
    for (std::size_t at = highest; at >= lowest + 8; at -= 8) {
      if (!is_relative_base(load_le<std::uint64_t>(bytes_, at))) continue;
      const auto n = load_le<std::uint64_t>(bytes_, at + 8);
      if (n == 0 || n > max_symbols || align_up(n * 4, 8) > at) continue;
      if (const auto found = tables_at(at, static_cast<std::uint32_t>(n), budget)) return found;
    }
    return std::nullopt;
  }

 private:
  std::optional<Tables> tables_at(std::size_t base, std::uint32_t n, Budget& budget) {
    const std::size_t names = base + 16;
    const auto names_end = end_of_names(bytes_, names, n, tokens_.start, budget);
    if (!names_end) return std::nullopt;
    const auto seqs = behind_markers(names, *names_end, n, budget);
    if (!seqs) return std::nullopt;
    Tables tables;
    tables.start = base - align_up(std::size_t{n} * 4, 8);
    tables.end = tokens_.index + index_size;
    tables.layout.count = n;
    tables.layout.names = static_cast<std::uint32_t>(names);
    tables.layout.names_size = static_cast<std::uint32_t>(*names_end - names);
    tables.layout.offsets = static_cast<std::uint32_t>(tables.start);
    tables.layout.seqs = static_cast<std::uint32_t>(*seqs);
    set_base(bytes_, tables.layout, base);
    return tables;
  }

  /// Where seqs_of_names lies between markers and token table; 0 if they touch.
  std::optional<std::size_t> behind_markers(std::size_t names, std::size_t names_end,
                                            std::uint32_t n, Budget& budget) {
    for (const std::size_t width : {4U, 8U}) {
      Markers markers{align_up(names_end, 8), (n + group_size - 1) / group_size, width};
      const std::size_t end = align_up(markers.start + markers.count * width, 8);
      const std::size_t seqs_end = align_up(end + std::size_t{n} * 3, 8);
      const bool touches = end == tokens_.start;
      if (!touches && seqs_end != tokens_.start) continue;
      if (!walk_names(bytes_, names, n, markers, budget)) continue;
      if (touches) return 0;
      if (is_permutation(bytes_, end, n)) return end;
    }
    return std::nullopt;
  }

  Bytes bytes_;
  TokenTable tokens_;
};

void rebase(KallsymsLayout& layout, std::size_t start) {
  const auto shift = static_cast<std::uint32_t>(start);
  layout.names -= shift;
  layout.token_table -= shift;
  layout.token_index -= shift;
  layout.offsets -= shift;
  if (layout.encoding != KallsymsLayout::Encoding::from_slot) layout.relative_base -= shift;
  if (layout.seqs != 0) layout.seqs -= shift;
}

Error not_located(std::string_view what) {
  return {.code = ErrorCode::bad_data, .message = "locate kallsyms: " + std::string(what)};
}

}  // namespace

std::optional<TokenTable> find_token_table(Bytes bytes, std::size_t from) {
  for (unsigned attempt = 0; attempt < max_token_attempts && from < bytes.size(); ++attempt) {
    const void* hit =
        memmem(bytes.data() + from, bytes.size() - from, digit_tokens.data(), digit_tokens.size());
    if (hit == nullptr) return std::nullopt;
    const auto at = static_cast<std::size_t>(static_cast<const std::byte*>(hit) - bytes.data());
    if (const auto table = token_table_around(bytes, at)) return table;
    from = at + 1;
  }
  return std::nullopt;
}

Result<FoundKallsyms> locate_kallsyms(Bytes bytes, const TokenTable& tokens) {
  VMSIGHT_CHECK(tokens.start < tokens.index && tokens.index + index_size <= bytes.size());
  if (bytes.size() > UINT32_MAX) return not_located("the search window is too large");
  // Names and markers lie alike in both orders. The base right before them tells the old one; the
  // new one may have no base, and is then tried last: zeros would pass for its offsets.
  auto tables = OldOrder(bytes, tokens).locate();
  if (!tables || !mostly_ascending(bytes, tables->layout)) {
    tables = NewOrder(bytes, tokens).locate();
    if (!tables) return not_located("no names and markers fit the token table");
    if (!mostly_ascending(bytes, tables->layout)) return not_located("the offsets are not sorted");
  }
  tables->layout.token_table = static_cast<std::uint32_t>(tokens.start);
  tables->layout.token_index = static_cast<std::uint32_t>(tokens.index);
  rebase(tables->layout, tables->start);
  tables->layout.size = static_cast<std::uint32_t>(tables->end - tables->start);
  return FoundKallsyms{tables->start, tables->layout};
}

}  // namespace vmsight
