// Guest RAM as bytes of open files: what both memory images and shared RAM backings are.
// Read by pread and SEEK_DATA, never by touching a mapping, because touching a hole of a shared
// memory file allocates it (a whole-RAM scan would make the host hold the whole RAM).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/os.h"
#include "vmsight/memory.h"

namespace vmsight {

/// A run of guest RAM in a file.
struct FileRun {
  GuestPhys start;
  std::uint64_t size = 0;       // bytes of guest RAM
  std::uint64_t file_size = 0;  // bytes that the file holds; the rest of `size` reads as zeros
  std::uint64_t offset = 0;     // where it begins in the file
  int fd = -1;                  // owned by the FileRuns
};

class FileRuns {
 public:
  /// Takes the descriptor; the runs refer to it by the number that this returns.
  int own(UniqueFd fd);
  /// Runs must not overlap.
  void add(FileRun run);

  std::span<const FileRun> runs() const { return runs_; }
  const FileRun* find(GuestPhys address) const;

  /// Copies guest RAM; a fault where no run holds it, bad_data where the file was truncated.
  Result<void> scan(GuestPhys from, std::span<std::byte> into) const;

  /// Appends the populated ranges of all runs to `found`, in order.
  Result<void> populated(std::vector<PhysRange>& found) const;
  /// The same for one run.
  Result<void> populated_in(const FileRun& run, std::vector<PhysRange>& found) const;

  /// pread calls made by scan().
  std::uint64_t calls() const { return calls_; }

 private:
  Result<void> read(const FileRun& run, std::uint64_t offset, std::span<std::byte> into) const;

  std::vector<UniqueFd> fds_;
  std::vector<FileRun> runs_;  // by start
  mutable std::uint64_t calls_ = 0;
};

/// Appends a range; joins it to the last one if they touch.
void append_range(std::vector<PhysRange>& ranges, PhysRange range);

}  // namespace vmsight
