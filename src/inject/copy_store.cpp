#include "inject/copy_store.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

namespace vmsight {
namespace {

constexpr std::uint64_t whole_pages(std::uint64_t bytes) {
  return (bytes + page_size - 1) & ~(page_size - 1);
}

constexpr std::uint64_t table_size(std::uint32_t pages) {
  return whole_pages(pages * sizeof(std::uint32_t));
}

constexpr std::uint64_t size_of(std::uint32_t pages) {
  return page_size + 2 * table_size(pages) + pages * page_size;
}

}  // namespace

Result<CopyStore> CopyStore::make(std::uint32_t pages) {
  UniqueFd file(::memfd_create("vmsight-copies", MFD_CLOEXEC));
  if (!file) return os_error(errno, "make a memfd");
  if (::ftruncate(file.get(), static_cast<off_t>(size_of(pages))) != 0) {
    return os_error(errno, "size a memfd");
  }
  return map(std::move(file), pages, true);
}

Result<CopyStore> CopyStore::share(UniqueFd file, std::uint32_t pages) {
  struct stat info {};
  if (::fstat(file.get(), &info) != 0 ||
      static_cast<std::uint64_t>(info.st_size) < size_of(pages)) {
    return Error{.code = ErrorCode::bad_data, .message = "share copies: the file is too small"};
  }
  return map(std::move(file), pages, false);
}

Result<CopyStore> CopyStore::map(UniqueFd file, std::uint32_t pages, bool is_new) {
  void* start = ::mmap(nullptr, size_of(pages), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                       file.get(), 0);
  if (start == MAP_FAILED)
    return os_error(errno, "reserve address space for copies of guest pages");
  CopyStore store;
  store.file_ = std::move(file);
  store.mapping_ = Mapping(start, size_of(pages));
  auto* const bytes = static_cast<std::byte*>(start);
  store.header_ = is_new ? new (start) Header : static_cast<Header*>(start);
  // Fresh pages are zeros, which is what these are to begin with.
  store.slots_ = reinterpret_cast<std::atomic<std::uint32_t>*>(bytes + page_size);
  store.pages_ = reinterpret_cast<std::uint32_t*>(bytes + page_size + table_size(pages));
  store.frames_ = bytes + page_size + 2 * table_size(pages);
  return store;
}

void CopyStore::clear() {
  constexpr std::uint32_t kept = 4096;  // frames that the next snapshot finds ready
  for (std::uint32_t i = 0; i < header_->used; ++i) {
    slots_[pages_[i]].store(0, std::memory_order_relaxed);
  }
  if (header_->used > kept) {
    ::madvise(frames_ + kept * page_size, (header_->used - kept) * page_size, MADV_REMOVE);
  }
  header_->used = 0;
  header_->lost.store(false, std::memory_order_release);
}

}  // namespace vmsight
