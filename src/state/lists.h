// Walking the kernel's linked lists and hash tables, which a guest may forge or be changing.
//
//   list_head     head -> node -> node -> head         ends where it began
//   hlist         bucket -> node -> node -> 0          ends with a null pointer
//   hlist_nulls   bucket -> node -> node -> marker     ends with an odd value, naming its bucket
//
// The first word of every node points to the next.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

#include "state/context.h"
#include "vmsight/reader.h"

namespace vmsight {

/// Notices in constant memory that a walk goes in circles (Brent's algorithm).
class CycleGuard {
 public:
  /// True if `node` was met before (found at the latest after twice the length of the circle).
  bool closes(GuestVirt node) {
    if (node == mark_) return true;
    if (++steps_ == limit_) {
      mark_ = node;
      limit_ *= 2;
    }
    return false;
  }

 private:
  GuestVirt mark_;
  std::uint64_t steps_ = 0, limit_ = 1;
};

/// Calls visit(node) for each node behind a list_head; visit must clear faults of its own.
/// False, with the reader's fault set, if the list is broken or goes in circles.
template <typename Visit>
bool walk_list(Reader& reader, GuestVirt head, Visit visit) {
  CycleGuard guard;
  GuestVirt node = reader.pointer(head);
  for (std::size_t count = 0; reader.ok() && node != head; ++count) {
    if (count == max_list_entries || guard.closes(node)) reader.set_fault(node);
    if (!reader.ok()) return false;
    visit(node);
    node = reader.pointer(node);
  }
  return reader.ok();
}

inline bool ends_chain(std::uint64_t link) { return link == 0 || (link & 1) != 0; }

/// Calls visit(node) for each node of an hlist or hlist_nulls chain. Returns the link that ended
/// it; nullopt, with the reader's fault set, if the chain is broken or goes in circles.
template <typename Visit>
std::optional<std::uint64_t> walk_chain(Reader& reader, std::uint64_t first, Visit visit) {
  CycleGuard guard;
  std::uint64_t link = first;
  for (std::size_t count = 0; reader.ok() && !ends_chain(link); ++count) {
    const GuestVirt node(link);
    if (count == max_list_entries || guard.closes(node)) {
      reader.set_fault(node);
      break;
    }
    visit(node);
    link = reader.u64(node);
  }
  if (!reader.ok()) return std::nullopt;
  return link;
}

/// An array of buckets, each with the head of a chain at `head_offset`, 8-byte aligned.
struct BucketArray {
  GuestVirt start;
  std::uint64_t count = 0;
  std::uint32_t stride = 8;
  std::uint32_t head_offset = 0;
  std::uint64_t head_mask = ~0ULL;  // bits of a head that belong to the pointer
};

inline std::uint64_t first_link(Reader& reader, const BucketArray& table, std::uint64_t bucket) {
  return reader.u64(table.start + bucket * table.stride + table.head_offset) & table.head_mask;
}

/// Of `count` heads: what is between them may be locks.
inline void record_heads(Reader& reader, GuestVirt at, const std::byte* bytes, std::uint32_t stride,
                         std::uint64_t count) {
  if (stride == 8) return reader.record(at, std::span(bytes, count * 8));
  for (std::uint64_t i = 0; i < count; ++i)
    reader.record(at + i * stride, std::span(bytes + i * stride, 8));
}

/// Calls visit(bucket, first link) for each bucket that is not empty. Nearly all are empty and
/// tables are large, so buckets are looked at a page at a time. Visit may use the reader freely
/// and must clear faults of its own. False, with the reader's fault set, if a page is missing or
/// the table cannot be one (a guest may forge its layout).
template <typename Visit>
bool each_chain(Reader& reader, const BucketArray& table, Visit visit) {
  struct Head {
    std::uint64_t bucket, link;
  };
  std::array<Head, page_size / 8> heads;
  std::array<std::byte, page_size> copy;
  GuestVirt at = table.start + table.head_offset;
  if (at.raw() % 8 != 0 || table.stride % 8 != 0 || table.stride == 0) {
    reader.set_fault(at);
    return false;
  }
  for (std::uint64_t bucket = 0; bucket < table.count;) {
    const std::byte* bytes = reader.locate(at);
    if (bytes == nullptr) return false;
    const std::uint64_t room = page_size - at.page_offset();
    const std::uint64_t here =
        std::min((room + table.stride - 1) / table.stride, table.count - bucket);
    if (reader.log() !=
        nullptr) {  // what is noted must be what is used, though it changes just now
      std::memcpy(copy.data(), bytes, std::min((here - 1) * table.stride + 8, room));
      bytes = copy.data();
      record_heads(reader, at, bytes, table.stride, here);
    }
    std::size_t found = 0;
    for (std::uint64_t i = 0; i < here; ++i) {
      std::uint64_t link;
      std::memcpy(&link, bytes + i * table.stride, sizeof(link));
      link &= table.head_mask;
      if (!ends_chain(link)) heads[found++] = {bucket + i, link};
    }
    for (std::size_t i = 0; i < found; ++i) visit(heads[i].bucket, heads[i].link);
    bucket += here;
    at = at + here * table.stride;
  }
  return true;
}

}  // namespace vmsight
