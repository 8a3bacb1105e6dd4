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
#include <memory>
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

/// Whether a file of this name may be one of baseline_path() in that directory.
bool is_baseline_path(const std::string& directory, std::string_view path);

/// Opens files of baselines: this process, or one that still may.
class BaselineFiles {
 public:
  virtual ~BaselineFiles() = default;
  /// A whole file that nobody else could have written. not_found, bad_data, permission.
  virtual Result<std::string> read(const std::string& path) = 0;
  /// In one step; the directory is made if there is none.
  virtual Result<void> replace(const std::string& path, std::string_view text) = 0;
  /// In a cache directory the oldest go if they are many.
  virtual void prune(const std::string& directory, std::string_view suffix) = 0;
};

/// Those that this process opens itself.
std::shared_ptr<BaselineFiles> own_baseline_files();

/// Errors of BaselineFiles; bad_data if the file is damaged.
Result<TextBaseline> load_baseline(BaselineFiles& files, const std::string& path);
Result<void> save_baseline(BaselineFiles& files, const std::string& path,
                           const TextBaseline& baseline);

/// Where two texts differ, as runs of bytes, other than by the distance that all of the kernel was
/// moved: an address in an instruction (4 or 8 bytes) differs by it, forwards or backwards.
struct TextChange {
  std::uint64_t offset = 0, size = 0;
};
std::vector<TextChange> compare_text(const TextBaseline& before, const TextBaseline& now,
                                     std::size_t limit);

}  // namespace vmsight
