// Finding what may be a Linux kernel in guest RAM, by patterns alone.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "vmsight/memory.h"

namespace vmsight {

/// A kernel's version text at the start of its read-only data. Linux aligns __start_rodata to
/// 2 MiB in both address spaces, and init/version.o is linked first, so the text lies in the
/// first page of a 2 MiB unit.
struct BannerHit {
  GuestPhys rodata;    // start of the page
  std::string banner;  // "Linux version 6.1.0-...", without the newline
};

inline constexpr std::uint64_t image_alignment = 2U << 20;
inline constexpr std::size_t max_banner_length = 512;
inline constexpr std::size_t max_banner_hits = 64;  // a guest can forge any number

/// The version text in one page, if there is one.
std::optional<std::string> banner_in(std::span<const std::byte> page);

/// Which of these pages begin a kernel's read-only data. One batch of reads.
Result<std::vector<BannerHit>> banners_at(GuestMemory& memory, std::span<const GuestPhys> pages);

/// Every populated 2 MiB boundary of RAM. At most max_banner_hits, by address.
Result<std::vector<BannerHit>> scan_banners(GuestMemory& memory);

/// What a scan of all RAM for kallsyms token tables met; slow (seconds for many GiB).
struct TokenTableScan {
  std::vector<GuestPhys> tables;     // at most max_banner_hits
  std::vector<std::string> banners;  // version texts met anywhere, distinct, a few: for messages
  std::uint64_t bytes = 0;           // populated bytes looked at
};
Result<TokenTableScan> scan_token_tables(GuestMemory& memory,
                                         const std::function<void(std::string_view)>& progress);

/// Bytes of RAM from here on without a gap, at most `limit`.
std::uint64_t contiguous_ram(const RamMap& ram, GuestPhys from, std::uint64_t limit);

}  // namespace vmsight
