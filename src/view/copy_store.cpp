#include "view/copy_store.h"

#include <sys/mman.h>

#include <cerrno>

namespace vmsight {
namespace {

constexpr std::uint64_t whole_pages(std::uint64_t bytes) {
  return (bytes + page_size - 1) & ~(page_size - 1);
}

}  // namespace

Result<CopyStore> CopyStore::make(std::uint32_t pages) {
  const std::uint64_t table = whole_pages(pages * sizeof(std::uint32_t));
  const std::uint64_t size = page_size + 2 * table + pages * page_size;
  void* start = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED)
    return os_error(errno, "reserve address space for copies of guest pages");
  CopyStore store;
  store.mapping_ = Mapping(start, size);
  auto* const bytes = static_cast<std::byte*>(start);
  store.header_ = new (start) Header;
  // Fresh pages are zeros, which is what these are to begin with.
  store.slots_ = reinterpret_cast<std::atomic<std::uint32_t>*>(bytes + page_size);
  store.pages_ = reinterpret_cast<std::uint32_t*>(bytes + page_size + table);
  store.frames_ = bytes + page_size + 2 * table;
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
