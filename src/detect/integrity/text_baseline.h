// A kernel's text as it was when it was seen first, in a file.
//
//   vmsight-text 1 <FNV-1a 64 of the rest, hex>
//   build-id <hex>
//   variant <hex>      of what decides how a kernel patches itself at boot: features of its CPU ...
//   base <hex>         where the text began: kernels are moved at boot
//   size <bytes> <bytes of the deflated text that follows>
//
// As with the cache of kernels (kernel/cache.h), a file that others could have written is not read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/address.h"
#include "vmsight/result.h"

namespace vmsight {

struct TextBaseline {
  std::string build_id;
  std::uint64_t variant = 0;
  GuestVirt base;
  std::vector<std::byte> text;
};

inline constexpr std::string_view text_suffix = ".text", modules_suffix = ".modules";
inline constexpr std::uint64_t max_baseline_text = 256U << 20;

/// The file of a build in the cache.
std::string baseline_path(const std::string& directory, const TextBaseline& of,
                          std::string_view suffix = text_suffix);

/// not_found if there is no such file; bad_data or permission say why it is not used.
Result<TextBaseline> load_baseline(const std::string& path);
/// Replaces the file in one step. In a cache directory the oldest baselines go if they are many.
Result<void> save_baseline(const std::string& path, const TextBaseline& baseline);
void prune_baselines(const std::string& directory, std::string_view suffix = text_suffix);

/// Where two texts differ, as runs of bytes, other than by the distance that all of the kernel was
/// moved: an address in an instruction (4 or 8 bytes) differs by it, forwards or backwards.
struct TextChange {
  std::uint64_t offset = 0, size = 0;
};
std::vector<TextChange> compare_text(const TextBaseline& before, const TextBaseline& now,
                                     std::size_t limit);

}  // namespace vmsight
