#include "render/memory_image.h"

#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "render/elf_core.h"

namespace vmsight {
namespace {

constexpr std::uint64_t chunk_size = 1 << 20;  // read at once

Result<void> write_at(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return os_error(errno, "write the image");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  return {};
}

bool is_zero(std::span<const std::byte> page) {
  static constexpr std::array<std::byte, page_size> zeros{};
  return std::memcmp(page.data(), zeros.data(), page_size) == 0;
}

/// Writes the pages that are not zero, neighbours together.
Result<void> write_pages(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  std::size_t start = 0;
  while (start < bytes.size()) {
    if (is_zero(bytes.subspan(start, page_size))) {
      start += page_size;
      continue;
    }
    std::size_t end = start + page_size;
    while (end < bytes.size() && !is_zero(bytes.subspan(end, page_size))) end += page_size;
    VMSIGHT_TRY_VOID(write_at(fd, bytes.subspan(start, end - start), offset + start));
    start = end;
  }
  return {};
}

/// Copies all populated RAM; `place` gives the file offset of a RAM range.
class Copier {
 public:
  Copier(int fd, GuestMemory& memory, const CopyProgress& progress)
      : fd_(fd), memory_(memory), progress_(progress), buffer_(chunk_size) {}

  Result<void> run(const std::function<std::uint64_t(const RamRange&)>& place) {
    VMSIGHT_TRY(const auto populated, memory_.populated());
    std::vector<Run> runs;
    for (const RamRange& range : memory_.ram().ranges()) {
      for (const PhysRange& run : populated) {
        const GuestPhys start = std::max(run.start, range.start);
        const GuestPhys end = std::min(run.start + run.size, range.end());
        if (start >= end) continue;
        runs.push_back({start, end, place(range) + (start - range.start)});
        total_ += end - start;
      }
    }
    for (const Run& run : runs) VMSIGHT_TRY_VOID(copy(run));
    return memory_.health();
  }

 private:
  struct Run {
    GuestPhys start, end;
    std::uint64_t offset;  // in the file
  };

  Result<void> copy(Run run) {
    while (run.start < run.end) {
      const auto piece = std::span(buffer_).first(std::min(chunk_size, run.end - run.start));
      VMSIGHT_TRY_VOID(memory_.scan(run.start, piece));
      VMSIGHT_TRY_VOID(write_pages(fd_, piece, run.offset));
      run.start = run.start + piece.size();
      run.offset += piece.size();
      done_ += piece.size();
      if (progress_) progress_(done_, total_);
    }
    return {};
  }

  int fd_;
  GuestMemory& memory_;
  const CopyProgress& progress_;
  std::vector<std::byte> buffer_;
  std::uint64_t done_ = 0, total_ = 0;
};

/// The pages at the end may be holes: the file has its full length all the same.
Result<void> set_size(int fd, std::uint64_t size) {
  if (::ftruncate(fd, static_cast<off_t>(size)) != 0) return os_error(errno, "write the image");
  return {};
}

}  // namespace

Result<void> write_elf_core(int fd, GuestMemory& memory, const CoreDetails& details,
                            const CopyProgress& progress) {
  const CoreHeader header = make_core_header(memory.ram(), details);
  VMSIGHT_TRY_VOID(set_size(fd, header.file_size));
  VMSIGHT_TRY_VOID(write_at(fd, std::as_bytes(std::span(header.bytes)), 0));
  return Copier(fd, memory, progress).run([&](const RamRange& range) {
    return header.offset_of(memory.ram(), range.start);
  });
}

Result<void> write_raw_image(int fd, GuestMemory& memory, const CopyProgress& progress) {
  VMSIGHT_TRY_VOID(set_size(fd, memory.ram().end().raw()));
  return Copier(fd, memory, progress).run([](const RamRange& range) { return range.start.raw(); });
}

}  // namespace vmsight
