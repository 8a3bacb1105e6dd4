#include "kernel/kallsyms.h"

#include <algorithm>
#include <cstring>

#include "kernel/bytes.h"
#include "kernel/kallsyms_names.h"

namespace vmsight {
namespace {

constexpr std::size_t copy_step = 16;  // tokens are copied in steps of this many bytes
constexpr std::size_t text_block = 256U << 10;

Error bad_table(std::string what) {
  return {.code = ErrorCode::bad_data, .message = "kallsyms: " + std::move(what)};
}

std::uint32_t hash_of(std::string_view name) {
  std::uint32_t hash = 2166136261U;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  return hash ^ (hash >> 15);
}

}  // namespace

Result<Kallsyms> Kallsyms::load(std::vector<std::byte> tables, const KallsymsLayout& layout) {
  Kallsyms result;
  result.tables_ = std::move(tables);
  result.layout_ = layout;
  VMSIGHT_TRY_VOID(result.check_layout());
  VMSIGHT_TRY_VOID(result.load_tokens());
  VMSIGHT_TRY_VOID(result.load_names());
  if (layout.seqs == 0) result.hash_names();
  VMSIGHT_TRY_VOID(result.find_text());
  return result;
}

Result<void> Kallsyms::check_layout() const {
  const auto inside = [this](std::uint64_t start, std::uint64_t size) {
    return start <= tables_.size() && size <= tables_.size() - start;
  };
  const std::uint64_t n = layout_.count;
  const bool has_base = layout_.encoding != KallsymsLayout::Encoding::from_slot;
  const bool good = n > 0 && n <= max_symbols && layout_.size == tables_.size() &&
                    inside(layout_.names, layout_.names_size) && inside(layout_.offsets, n * 4) &&
                    layout_.token_table < layout_.token_index && inside(layout_.token_index, 512) &&
                    inside(layout_.seqs, layout_.seqs == 0 ? 0 : n * 3) &&
                    inside(layout_.relative_base, has_base ? 8 : 0);
  if (!good) return bad_table("the layout leaves the tables");
  return {};
}

Result<void> Kallsyms::load_tokens() {
  const std::size_t size = layout_.token_index - layout_.token_table;
  const char* start = reinterpret_cast<const char*>(tables_.data()) + layout_.token_table;
  token_text_.assign(start, start + size);
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const auto at = load_le<std::uint16_t>(tables_, layout_.token_index + i * 2);
    if (at >= size) return bad_table("a token begins outside the token table");
    const void* end = std::memchr(start + at, 0, size - at);
    if (end == nullptr) return bad_table("a token does not end");
    tokens_[i] = {at, static_cast<std::uint32_t>(static_cast<const char*>(end) - (start + at))};
  }
  token_text_.resize(size + copy_step);
  return {};
}

Result<void> Kallsyms::load_names() {
  name_starts_.reserve(layout_.count);
  const std::uint32_t end = layout_.names + layout_.names_size;
  std::uint32_t at = layout_.names;
  for (std::uint32_t i = 0; i < layout_.count; ++i) {
    name_starts_.push_back(at);
    const auto next = skip_name(tables_, at, end);
    if (!next) return bad_table("the names are longer than their table");
    at = static_cast<std::uint32_t>(*next);
  }
  return {};
}

/// Expands the type letter and name of a symbol; 0 if it is longer than any real name. `into`
/// has the room of a NameBuffer: whole steps are copied, past the end of a token and of the name.
std::size_t Kallsyms::expand(std::uint32_t index, char* into) const {
  const auto [start, length] = name_extent(tables_, name_starts_[index]);
  std::size_t used = 0;
  for (std::size_t i = 0; i < length; ++i) {
    const Token token = tokens_[std::to_integer<std::uint8_t>(tables_[start + i])];
    if (used + token.length > 1 + max_symbol_name) return 0;
    const char* text = token_text_.data() + token.start;
    for (std::size_t done = 0; done < token.length; done += copy_step) {
      std::memcpy(into + used + done, text + done, copy_step);
    }
    used += token.length;
  }
  return used;
}

std::string_view Kallsyms::name(std::uint32_t index, NameBuffer& buffer) const {
  const std::size_t length = expand(index, buffer.data());
  return length == 0 ? std::string_view{} : std::string_view(buffer.data() + 1, length - 1);
}

void Kallsyms::hash_names() {
  std::uint32_t buckets = 1;
  while (buckets < layout_.count) buckets *= 2;
  std::vector<std::uint32_t> hashes(layout_.count);
  bucket_starts_.assign(buckets + 1, 0);
  NameBuffer buffer;
  for (std::uint32_t i = 0; i < layout_.count; ++i) {
    hashes[i] = hash_of(name(i, buffer)) & (buckets - 1);
    ++bucket_starts_[hashes[i] + 1];
  }
  for (std::uint32_t b = 0; b < buckets; ++b) bucket_starts_[b + 1] += bucket_starts_[b];
  by_hash_.resize(layout_.count);
  std::vector<std::uint32_t> next(bucket_starts_.begin(), bucket_starts_.end() - 1);
  for (std::uint32_t i = 0; i < layout_.count; ++i) by_hash_[next[hashes[i]]++] = i;
}

std::optional<std::uint32_t> Kallsyms::search_hashed(std::string_view wanted) const {
  const std::uint32_t buckets = static_cast<std::uint32_t>(bucket_starts_.size() - 1);
  const std::uint32_t bucket = hash_of(wanted) & (buckets - 1);
  NameBuffer buffer;
  for (std::uint32_t at = bucket_starts_[bucket]; at < bucket_starts_[bucket + 1]; ++at) {
    if (name(by_hash_[at], buffer) == wanted) return by_hash_[at];
  }
  return std::nullopt;
}

std::uint32_t Kallsyms::symbol_in_name_order(std::uint32_t position) const {
  const std::size_t at = layout_.seqs + std::size_t{position} * 3;
  const std::uint32_t index = std::to_integer<std::uint32_t>(tables_[at]) << 16 |
                              std::to_integer<std::uint32_t>(tables_[at + 1]) << 8 |
                              std::to_integer<std::uint32_t>(tables_[at + 2]);
  return std::min(index, layout_.count - 1);  // a forged table finds nothing, or nonsense
}

std::optional<std::uint32_t> Kallsyms::search_sorted(std::string_view wanted) const {
  NameBuffer buffer;
  std::uint32_t low = 0, high = layout_.count;
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    if (name(symbol_in_name_order(middle), buffer) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == layout_.count) return std::nullopt;
  const std::uint32_t index = symbol_in_name_order(low);
  return name(index, buffer) == wanted ? std::optional(index) : std::nullopt;
}

std::optional<std::uint32_t> Kallsyms::search(std::string_view wanted) const {
  if (wanted.empty()) return std::nullopt;
  return layout_.seqs != 0 ? search_sorted(wanted) : search_hashed(wanted);
}

/// The value as the tables have it: an address, or for from_slot a position in the tables.
SymbolValue Kallsyms::raw_value(std::uint32_t index) const {
  const std::size_t slot = layout_.offsets + std::size_t{index} * 4;
  const auto offset = load_le<std::int32_t>(tables_, slot);
  const auto extended = static_cast<std::uint64_t>(std::int64_t{offset});
  switch (layout_.encoding) {
    case KallsymsLayout::Encoding::from_slot:
      return {.value = slot + extended};
    case KallsymsLayout::Encoding::from_base:
      return {.value = base_ + static_cast<std::uint32_t>(offset)};
    case KallsymsLayout::Encoding::absolute_percpu:
      break;
  }
  if (offset >= 0) return {.value = extended, .absolute = true};
  return {.value = base_ - 1 - extended};
}

SymbolValue Kallsyms::value(std::uint32_t index) const {
  SymbolValue result = raw_value(index);
  if (!result.absolute) result.value -= text_;
  return result;
}

Result<void> Kallsyms::find_text() {
  if (layout_.encoding != KallsymsLayout::Encoding::from_slot) {
    base_ = load_le<std::uint64_t>(tables_, layout_.relative_base);
  }
  const auto index = search("_text");
  if (!index) return bad_table("there is no symbol _text");
  const SymbolValue text = raw_value(*index);
  if (text.absolute) return bad_table("_text is not an address");
  text_ = text.value;
  return {};
}

std::optional<std::uint64_t> Kallsyms::text_position() const {
  if (layout_.encoding != KallsymsLayout::Encoding::from_slot) return std::nullopt;
  return text_;
}

std::optional<SymbolValue> Kallsyms::find(std::string_view wanted) const {
  const auto index = search(wanted);
  if (!index) return std::nullopt;
  SymbolValue result = value(*index);
  NameBuffer buffer;
  if (expand(*index, buffer.data()) > 0) result.type = buffer[0];
  return result;
}

void Kallsyms::decode(Text& text, const Visit& visit) const {
  std::size_t used = text_block;
  std::size_t total = 0;
  for (std::uint32_t i = 0; i < layout_.count && total < max_decoded_text; ++i) {
    if (used + sizeof(NameBuffer) > text_block) {
      text.push_back(std::make_unique_for_overwrite<char[]>(text_block));
      used = 0;
    }
    char* at = text.back().get() + used;
    const std::size_t length = expand(i, at);
    if (length == 0) continue;
    SymbolValue symbol = value(i);
    symbol.type = *at;
    visit({at + 1, length - 1}, symbol);
    used += length;
    total += length;
  }
}

}  // namespace vmsight
