#include <algorithm>
#include <cstring>

#include "vmsight/state.h"

namespace vmsight {

std::span<char> Arena::allocate(std::size_t size) {
  while (block_ < blocks_.size() && blocks_[block_].size - used_ < size) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    const std::size_t capacity = std::max(size, block_size);
    blocks_.push_back({std::make_unique_for_overwrite<char[]>(capacity), capacity});
    used_ = 0;
  }
  char* start = blocks_[block_].data.get() + used_;
  used_ += size;
  total_ += size;
  return {start, size};
}

std::string_view Arena::shrink(std::span<char> last, std::size_t used) {
  VMSIGHT_CHECK(used <= last.size());
  used_ -= last.size() - used;
  total_ -= last.size() - used;
  return {last.data(), used};
}

std::string_view Arena::copy(std::string_view text) {
  std::span<char> to = allocate(text.size());
  if (!text.empty()) std::memcpy(to.data(), text.data(), text.size());
  return {to.data(), to.size()};
}

void Arena::clear() { block_ = used_ = total_ = 0; }

}  // namespace vmsight
