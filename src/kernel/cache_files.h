// The files of the cache, by whoever may open them: in a directory, or asked of a process that may when we have
// given up that right.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/result.h"

namespace vmsight {

class CacheFiles {
 public:
  virtual ~CacheFiles() = default;

  /// The names that begin and end so; none if nothing was ever kept. permission if others could have written there.
  virtual Result<std::vector<std::string>> list(std::string_view prefix,
                                                std::string_view suffix) = 0;
  /// A whole file; its use is noted. permission if it is not one of ours, at most `max_file_bytes`.
  virtual Result<std::string> read(std::string_view name) = 0;
  /// Replaces it in one step. What was not used for longest goes, once there is too much.
  virtual Result<void> replace(std::string_view name, std::string_view text) = 0;

  static constexpr std::size_t max_file_bytes = 8U << 20;
  /// Of kernels, and of places: many VMs do not drive out the kernel that they run.
  static constexpr std::size_t max_files = 256;
  static constexpr std::uint64_t max_bytes = 64U << 20;
};

/// What was learnt of a kernel, and where the kernel of a VM was.
inline constexpr std::string_view kernel_file = ".kernel", place_file = ".place";

/// Letters, digits and '-', then one of these suffixes: no other name is read or written.
bool is_cache_name(std::string_view name);

/// In a directory of mode 0700, which the first replace() makes.
class CacheDirectory final : public CacheFiles {
 public:
  explicit CacheDirectory(std::string path) : path_(std::move(path)) {}

  Result<std::vector<std::string>> list(std::string_view prefix, std::string_view suffix) override;
  Result<std::string> read(std::string_view name) override;
  Result<void> replace(std::string_view name, std::string_view text) override;

 private:
  Result<void> make() const;
  void prune_after(std::string_view name) const;
  std::string path_of(std::string_view name) const;

  std::string path_;
};

}  // namespace vmsight
