// The memory of one snapshot, where the means to read snapshots are kept for the next one.
#pragma once

#include <functional>
#include <utility>

#include "base/memory_decorator.h"

namespace vmsight {

/// Forwards to memory of somebody else, and tells when it is done with.
class LentMemory final : public MemoryDecorator {
 public:
  LentMemory(GuestMemory& memory, std::function<void()> give_back)
      : MemoryDecorator(memory), give_back_(std::move(give_back)) {}
  LentMemory(const LentMemory&) = delete;
  LentMemory& operator=(const LentMemory&) = delete;
  ~LentMemory() override { give_back_(); }

 private:
  std::function<void()> give_back_;
};

}  // namespace vmsight
