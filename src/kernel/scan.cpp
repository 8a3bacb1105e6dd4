#include "kernel/scan.h"

#include <algorithm>
#include <cstring>

#include "kernel/kallsyms.h"

namespace vmsight {
namespace {

constexpr std::string_view banner_prefix = "Linux version ";
constexpr std::size_t pages_per_batch = 256;
constexpr std::size_t scan_chunk = 4U << 20;
constexpr std::size_t scan_overlap = 8U << 10;  // more than a token table and its index
constexpr std::size_t max_banners_named = 4;

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// "Linux version 6..." up to the end of its line, if it is printable text.
std::optional<std::string> banner_text(std::string_view text) {
  const std::size_t length = std::min(text.find_first_of(std::string_view("\n\0", 2)),
                                      std::min(text.size(), max_banner_length));
  const std::string_view line = text.substr(0, length);
  const bool has_version = line.size() > banner_prefix.size() &&
                           line[banner_prefix.size()] >= '0' && line[banner_prefix.size()] <= '9';
  const bool printable =
      std::all_of(line.begin(), line.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (!has_version || !printable) return std::nullopt;
  return std::string(line);
}

/// Calls `look` with chunks of a populated run that overlap, so that a table across a border is
/// seen whole by one of them.
Result<void> for_each_chunk(
    GuestMemory& memory, const PhysRange& run, std::vector<std::byte>& buffer,
    const std::function<void(GuestPhys, std::span<const std::byte>)>& look) {
  for (std::uint64_t at = 0; at < run.size; at += scan_chunk) {
    const std::uint64_t length = std::min<std::uint64_t>(scan_chunk + scan_overlap, run.size - at);
    const std::span<std::byte> chunk(buffer.data(), length);
    VMSIGHT_TRY_VOID(memory.scan(run.start + at, chunk));
    look(run.start + at, chunk);
  }
  return {};
}

void note_tables(GuestPhys start, std::span<const std::byte> chunk, TokenTableScan& into) {
  std::size_t from = 0;
  while (into.tables.size() < max_banner_hits) {
    const auto found = find_token_table(chunk, from);
    if (!found) return;
    const GuestPhys at = start + found->start;
    if (std::find(into.tables.begin(), into.tables.end(), at) == into.tables.end())
      into.tables.push_back(at);
    from = found->index;
  }
}

void note_banners(std::span<const std::byte> chunk, TokenTableScan& into) {
  const std::string_view text = as_text(chunk);
  for (std::size_t at = text.find(banner_prefix);
       at != text.npos && into.banners.size() < max_banners_named;
       at = text.find(banner_prefix, at + 1)) {
    const auto banner = banner_text(text.substr(at, max_banner_length));
    if (banner &&
        std::find(into.banners.begin(), into.banners.end(), *banner) == into.banners.end())
      into.banners.push_back(*banner);
  }
}

}  // namespace

std::optional<std::string> banner_in(std::span<const std::byte> page) {
  const std::string_view text = as_text(page);
  const std::size_t at = text.find(banner_prefix);
  if (at == text.npos) return std::nullopt;
  return banner_text(text.substr(at));
}

Result<std::vector<BannerHit>> banners_at(GuestMemory& memory, std::span<const GuestPhys> pages) {
  std::vector<BannerHit> hits;
  std::vector<std::byte> buffer(std::min(pages.size(), pages_per_batch) * page_size);
  std::vector<FreshRead> reads;
  for (std::size_t first = 0; first < pages.size(); first += pages_per_batch) {
    reads.clear();
    const auto batch = pages.subspan(first, std::min(pages_per_batch, pages.size() - first));
    for (std::size_t i = 0; i < batch.size(); ++i) {
      reads.push_back({batch[i], std::span(buffer).subspan(i * page_size, page_size)});
    }
    VMSIGHT_TRY_VOID(memory.read_fresh(reads));
    for (const FreshRead& read : reads) {
      if (!read.ok) continue;
      if (auto banner = banner_in(read.into)) hits.push_back({read.from, std::move(*banner)});
      if (hits.size() == max_banner_hits) return hits;
    }
  }
  return hits;
}

Result<std::vector<BannerHit>> scan_banners(GuestMemory& memory) {
  VMSIGHT_TRY(const auto populated, memory.populated());
  std::vector<GuestPhys> pages;
  for (const PhysRange& run : populated) {
    const std::uint64_t first =
        (run.start.raw() + image_alignment - 1) / image_alignment * image_alignment;
    for (std::uint64_t at = first; at < run.start.raw() + run.size; at += image_alignment) {
      pages.emplace_back(at);
    }
  }
  return banners_at(memory, pages);
}

Result<TokenTableScan> scan_token_tables(GuestMemory& memory,
                                         const std::function<void(std::string_view)>& progress) {
  VMSIGHT_TRY(const auto populated, memory.populated());
  TokenTableScan result;
  for (const PhysRange& run : populated) result.bytes += run.size;
  if (progress) {
    progress(fmt::format("no kernel at the usual places; searching {} MiB of guest memory",
                         result.bytes >> 20));
  }
  std::vector<std::byte> buffer(scan_chunk + scan_overlap);
  for (const PhysRange& run : populated) {
    VMSIGHT_TRY_VOID(for_each_chunk(memory, run, buffer, [&](auto start, auto chunk) {
      note_tables(start, chunk, result);
      note_banners(chunk, result);
    }));
  }
  return result;
}

std::uint64_t contiguous_ram(const RamMap& ram, GuestPhys from, std::uint64_t limit) {
  std::uint64_t length = 0;
  while (length < limit) {
    const RamRange* range = ram.find(from + length);
    if (range == nullptr) break;
    length = range->end() - from;
  }
  return std::min(length, limit);
}

}  // namespace vmsight
