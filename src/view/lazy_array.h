// A large array of zeros that costs memory only where it was written.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <type_traits>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

enum class PageSize {
  small,  // for sparse use: a huge page would make one touched element cost 2 MiB
  huge,   // for use from the front: saves most of the page faults of a cold view
};

/// Never moves its elements. T must be meaningful as all-zero bytes.
template <typename T>
class LazyArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  LazyArray() = default;
  static Result<LazyArray> make(std::size_t count, PageSize pages = PageSize::small) {
    std::size_t bytes = 0;
    if (count == 0 || __builtin_mul_overflow(count, sizeof(T), &bytes)) bytes = sizeof(T);
    void* start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return os_error(errno, "reserve address space");
    // Only a wish: a host without huge pages gives small ones.
    ::madvise(start, bytes, pages == PageSize::huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    LazyArray array;
    array.mapping_ = Mapping(start, bytes);
    array.items_ = static_cast<T*>(start);
    array.size_ = count;
    return array;
  }

  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return items_[i]; }
  const T& operator[](std::size_t i) const { return items_[i]; }
  T* data() { return items_; }

  /// Elements from `first` on become zero and give their memory back. The array must start
  /// `first` at a host page boundary.
  void release_from(std::size_t first) {
    if (first >= size_) return;
    ::madvise(items_ + first, (size_ - first) * sizeof(T), MADV_DONTNEED);
  }

 private:
  Mapping mapping_;
  T* items_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace vmsight
