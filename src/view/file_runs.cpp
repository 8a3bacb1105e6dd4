#include "view/file_runs.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "view/ram_pieces.h"

namespace vmsight {

int FileRuns::own(UniqueFd fd) {
  fds_.push_back(std::move(fd));
  return fds_.back().get();
}

void FileRuns::add(FileRun run) {
  const auto at = std::upper_bound(runs_.begin(), runs_.end(), run.start,
                                   [](GuestPhys a, const FileRun& r) { return a < r.start; });
  runs_.insert(at, run);
}

const FileRun* FileRuns::find(GuestPhys address) const {
  const auto after = std::upper_bound(runs_.begin(), runs_.end(), address,
                                      [](GuestPhys a, const FileRun& r) { return a < r.start; });
  if (after == runs_.begin()) return nullptr;
  const FileRun& run = *std::prev(after);
  return address - run.start < run.size ? &run : nullptr;
}

Result<void> FileRuns::scan(GuestPhys from, std::span<std::byte> into) const {
  while (!into.empty()) {
    const FileRun* run = find(from);
    if (run == nullptr) return not_ram(from);
    const std::uint64_t offset = from - run->start;
    const std::size_t length = std::min<std::uint64_t>(into.size(), run->size - offset);
    const std::size_t in_file =
        offset < run->file_size ? std::min<std::uint64_t>(length, run->file_size - offset) : 0;
    VMSIGHT_TRY_VOID(read(*run, offset, into.first(in_file)));
    std::memset(into.data() + in_file, 0, length - in_file);
    into = into.subspan(length);
    from = from + length;
  }
  return {};
}

Result<void> FileRuns::read(const FileRun& run, std::uint64_t offset,
                            std::span<std::byte> into) const {
  while (!into.empty()) {
    ++calls_;
    const ssize_t got =
        ::pread(run.fd, into.data(), into.size(), static_cast<off_t>(run.offset + offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error(errno, fmt::format("read {}", run.start + offset));
    if (got == 0) {
      return Error{.code = ErrorCode::bad_data,
                   .message = fmt::format("read {}: the file ends before it", run.start + offset)};
    }
    into = into.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

Result<void> FileRuns::populated(std::vector<PhysRange>& found) const {
  for (const FileRun& run : runs_) VMSIGHT_TRY_VOID(populated_in(run, found));
  return {};
}

namespace {

/// Less than `file_size` if an image was cut short: the whole pages that are there. (The size of a
/// device is not told this way.)
std::uint64_t held_bytes(const FileRun& run) {
  struct stat info {};
  if (::fstat(run.fd, &info) != 0 || !S_ISREG(info.st_mode)) return run.file_size;
  const auto size = static_cast<std::uint64_t>(info.st_size);
  if (run.offset >= size) return 0;
  const std::uint64_t held = size - run.offset;
  return held >= run.file_size ? run.file_size : held & ~(page_size - 1);
}

}  // namespace

Result<void> FileRuns::populated_in(const FileRun& run, std::vector<PhysRange>& found) const {
  const std::uint64_t end = run.offset + held_bytes(run);
  std::uint64_t at = run.offset;
  while (at < end) {
    const off_t data = ::lseek(run.fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return {};  // a hole up to the end of the file
    if (data < 0 && errno != EINVAL) return os_error(errno, "find data in the RAM file");
    // EINVAL: a file system that does not know holes.
    const std::uint64_t start = data < 0 ? at : static_cast<std::uint64_t>(data);
    if (start >= end) return {};
    const off_t hole = data < 0 ? -1 : ::lseek(run.fd, data, SEEK_HOLE);
    const std::uint64_t stop = hole < 0 ? end : std::min(end, static_cast<std::uint64_t>(hole));
    if (stop <= start) return {};  // the file changed in between
    // Whole pages, also where the file's own granularity is finer.
    const GuestPhys first = (run.start + (start - run.offset)).page();
    const GuestPhys last = (run.start + (stop - run.offset) + (page_size - 1)).page();
    append_range(found, {first, last - first});
    at = stop;
  }
  return {};
}

void append_range(std::vector<PhysRange>& ranges, PhysRange range) {
  if (range.size == 0) return;
  if (!ranges.empty()) {
    PhysRange& last = ranges.back();
    const GuestPhys end = last.start + last.size;
    if (range.start <= end && range.start >= last.start) {
      const GuestPhys new_end = std::max(end, range.start + range.size);
      last.size = new_end - last.start;
      return;
    }
  }
  ranges.push_back(range);
}

}  // namespace vmsight
