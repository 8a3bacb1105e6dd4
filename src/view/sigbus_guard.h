// Mappings that survive a file being truncated under them.
//
// Touching a mapped page beyond the end of its file raises SIGBUS, and the file is not ours: the
// host may truncate a RAM file or an image while we look at it. The guard's handler puts zero
// pages over the faulting page and marks the mapping damaged, so that the reader goes on and
// then learns from damaged() not to believe what it read. Other SIGBUSes go to the handler that
// was installed before. A program asks for it by survive_lost_memory() of vmsight/view.h.
#pragma once

#include <cstdint>
#include <span>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

class GuardedMapping {
 public:
  GuardedMapping() = default;
  /// Maps `size` bytes of a file from `offset` (a multiple of 4096), shared, read-only. Of a file on
  /// huge pages, where only whole ones can be mapped, those around it are mapped too. Populates nothing.
  /// unsupported before survive_lost_memory().
  static Result<GuardedMapping> map(int fd, std::uint64_t offset, std::uint64_t size);
  GuardedMapping(GuardedMapping&& other) noexcept;
  GuardedMapping& operator=(GuardedMapping&& other) noexcept;
  ~GuardedMapping();

  std::span<const std::byte> bytes() const { return mapping_.bytes().subspan(before_, size_); }
  /// Some page was lost and now reads as zeros. Never becomes false again.
  bool damaged() const;

 private:
  void release();

  Mapping mapping_;
  std::size_t before_ = 0, size_ = 0;  // what was asked for, within the mapping
  int entry_ = -1;                     // in the table that the handler searches
};

}  // namespace vmsight
