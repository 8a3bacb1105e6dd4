// Files of the guest that its page cache holds: what processes execute is there.
//
//   inode -> i_mapping -> i_pages (an xarray) -> struct page -> the page's number
//
// Only pages that are in memory can be read; the guest would fetch others from its disk.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "state/members.h"
#include "vmsight/probe.h"
#include "vmsight/reader.h"

namespace vmsight {

/// A file's bytes, some of which may not be there.
class FileBytes {
 public:
  virtual ~FileBytes() = default;
  virtual std::uint64_t size() const = 0;
  /// False if any of the bytes is not there.
  virtual bool read(std::uint64_t offset, std::span<std::byte> into) = 0;
};

class PageCache {
 public:
  static Result<PageCache> resolve(Kernel& kernel);

  /// Page `index` of the file; nullopt if it is not in memory. Leaves no fault in the reader.
  std::optional<GuestPhys> page(Reader& reader, GuestVirt inode, std::uint64_t index) const;
  std::uint64_t size(Reader& reader, GuestVirt inode) const;
  /// nullopt if the inode is not mapped.
  std::optional<FileIdentity> identity(Reader& reader, GuestVirt inode) const;

 private:
  std::optional<GuestVirt> descriptor(Reader& reader, GuestVirt mapping, std::uint64_t index) const;

  struct Offsets {
    Offset i_sb, i_ino, i_generation;
    Offset i_mapping, i_size, xa_head, node_shift, node_slots, page_index, page_mapping;
  } at_{};
  GuestVirt vmemmap_;
  std::uint32_t page_bytes_ = 0;  // of struct page
};

/// A file of the guest.
class CachedFile final : public FileBytes {
 public:
  CachedFile(const PageCache& cache, Reader& reader, GuestVirt inode)
      : cache_(cache), reader_(reader), inode_(inode), size_(cache.size(reader, inode)) {}
  std::uint64_t size() const override { return size_; }
  bool read(std::uint64_t offset, std::span<std::byte> into) override;

 private:
  const PageCache& cache_;
  Reader& reader_;
  GuestVirt inode_;
  std::uint64_t size_;
};

}  // namespace vmsight
