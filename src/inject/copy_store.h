// Copies of guest pages, made by one process and read by another: the pages that the guest has
// overwritten since a snapshot was taken.
//
// Order is what makes a snapshot right. The writer publishes a copy before it lets the guest write
// the page; the reader looks for a copy after it has read the live page. So a reader that saw the
// guest's write also finds the copy, and one that finds none has read the page as it was.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/os.h"
#include "vmsight/address.h"
#include "vmsight/result.h"

namespace vmsight {

class CopyStore {
 public:
  CopyStore() = default;
  /// For pages numbered below `pages`. Its memory costs only what copies are in it.
  static Result<CopyStore> make(std::uint32_t pages);
  /// The one that another process made, by its descriptor.
  static Result<CopyStore> share(UniqueFd file, std::uint32_t pages);
  int fd() const { return file_.get(); }

  /// The copy of this page, or nullptr. Either process; valid until clear().
  const std::byte* find(std::uint32_t page) const {
    const std::uint32_t slot = slots_[page].load(std::memory_order_acquire);
    return slot == 0 ? nullptr : frames_ + (slot - 1) * page_size;
  }

  // The writer's part.
  /// Room for the copy of a page that has none. There is room for each page once.
  std::byte* room() const { return frames_ + header_->used * page_size; }
  /// What was written to room() is the copy of this page.
  void publish(std::uint32_t page) {
    pages_[header_->used] = page;
    slots_[page].store(++header_->used, std::memory_order_release);
  }
  /// A copy could not be made: what is read from now on may be wrong.
  void set_lost() { header_->lost.store(true, std::memory_order_release); }
  /// Forgets all copies and gives most of their memory back. The reader must not be reading.
  void clear();

  bool lost() const { return header_->lost.load(std::memory_order_acquire); }
  std::uint32_t count() const { return header_->used; }

 private:
  struct Header {
    std::uint32_t used = 0;  // the writer's
    std::atomic<bool> lost = false;
  };
  static Result<CopyStore> map(UniqueFd file, std::uint32_t pages, bool is_new);

  UniqueFd file_;
  Mapping mapping_;
  Header* header_ = nullptr;
  std::atomic<std::uint32_t>* slots_ = nullptr;  // by page: frame + 1
  std::uint32_t* pages_ = nullptr;               // by frame
  std::byte* frames_ = nullptr;
};

}  // namespace vmsight
