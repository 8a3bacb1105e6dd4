// The cache of what was learnt about kernels: a directory with one text file a build.
//
//   vmsight-kernel 1 <FNV-1a 64 of the rest, hex>
//   banner Linux version 6.1.0-...
//   build-id 5b1c...
//   kallsyms <from_rodata> <count> <encoding> <names> <names_size> ... <size>
//   symbol <name> <value, hex> <r|a> <type letter>       or:  symbol <name> -
//   member <type> <path> <offset> <size> <bit offset> <bit size> <count>
//   size <type> <bytes>
//   enumerator <name> <value>
//   module <name> <BTF bytes> <BTF hash, hex>
//
// The file is a hint, not a truth: a file that another user could have written is not read, a
// damaged one is not used, and what it says is checked against the guest before it is believed.
// The build-id is the guest's word: a guest that forges another build's puts wrong layouts into
// that build's file. It can spoil answers (they are checked for sense), not our memory.
//
// Beside it, one line a running VM says where its kernel was (place.h). Guests choose how many builds
// they claim to be: what was not used for longest goes once the files are too many or too large.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernel/cache_files.h"
#include "kernel/memo.h"
#include "kernel/place.h"
#include "vmsight/result.h"

namespace vmsight {

/// The text of a cache file, and back. bad_data says what is wrong with it.
std::string format_memo(const KernelMemo& memo);
Result<KernelMemo> parse_memo(std::string_view text);

class KernelCache {
 public:
  /// Of this directory; "" = no cache: finds nothing, saves nothing.
  explicit KernelCache(const std::string& directory);
  explicit KernelCache(std::shared_ptr<CacheFiles> files) : files_(std::move(files)) {}

  struct Found {
    std::vector<KernelMemo> memos;  // of builds with this banner; nearly always one
    std::string note;               // why a file was not used; "" if nothing was wrong
  };
  Found find(std::string_view banner) const;

  /// Replaces the build's file in one step. A memo without build-id is not saved.
  Result<void> save(const KernelMemo& memo) const;

  /// Where the kernel of a VM was. `vm` is what tells the VM from all others, in letters, digits, '-'.
  std::optional<KernelPlace> find_place(std::string_view vm) const;
  Result<void> save_place(std::string_view vm, const KernelPlace& place) const;

 private:
  std::shared_ptr<CacheFiles> files_;
};

}  // namespace vmsight
