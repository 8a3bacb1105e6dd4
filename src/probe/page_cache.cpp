#include "probe/page_cache.h"

#include <algorithm>
#include <cstring>

namespace vmsight {
namespace {

// include/linux/xarray.h: the low bits of an entry tell what it is; a node has 64 slots.
constexpr std::uint64_t tag_mask = 3, internal_tag = 2;
constexpr std::uint64_t first_node = 4096;  // smaller internal entries are siblings and the like
constexpr unsigned slot_bits = 6;
constexpr std::uint64_t slot_mask = (1u << slot_bits) - 1;
constexpr unsigned max_depth = 11;  // of 64-bit indices

}  // namespace

Result<PageCache> PageCache::resolve(Kernel& kernel) {
  Members members(kernel);
  PageCache cache;
  cache.at_ = {
      .i_sb = members.find("inode", "i_sb"),
      .i_ino = members.find("inode", "i_ino"),
      .i_generation = members.find("inode", "i_generation"),
      .i_mapping = members.offset("inode", "i_mapping"),
      .i_size = members.offset("inode", "i_size"),
      .xa_head = members.offset("address_space", "i_pages.xa_head"),
      .node_shift = members.offset("xa_node", "shift"),
      .node_slots = members.offset("xa_node", "slots"),
      .page_index = 0,
      .page_mapping = 0,
  };
  // A folio (since 5.16) begins as its first page does; there the index has moved to.
  const bool folios = kernel.member("folio", "index").has_value();
  cache.at_.page_index = members.offset(folios ? "folio" : "page", "index");
  cache.at_.page_mapping = members.offset(folios ? "folio" : "page", "mapping");
  cache.page_bytes_ = members.size("page");
  cache.vmemmap_ = kernel.vmemmap();
  VMSIGHT_TRY_VOID(members.check());
  if (cache.page_bytes_ == 0) {
    return Error{.code = ErrorCode::unsupported, .message = "read files: struct page has no size"};
  }
  return cache;
}

std::uint64_t PageCache::size(Reader& reader, GuestVirt inode) const {
  reader.clear_fault();
  const std::uint64_t size = reader.u64(inode + at_.i_size);
  reader.clear_fault();
  return size;
}

std::optional<FileIdentity> PageCache::identity(Reader& reader, GuestVirt inode) const {
  reader.clear_fault();
  FileIdentity found;
  if (at_.i_sb != absent) found.superblock = reader.u64(inode + at_.i_sb);
  if (at_.i_ino != absent) found.number = reader.u64(inode + at_.i_ino);
  if (at_.i_generation != absent) found.generation = reader.u32(inode + at_.i_generation);
  const bool ok = reader.ok();
  reader.clear_fault();
  return ok ? std::optional(found) : std::nullopt;
}

/// The first struct page of the folio that holds the page.
std::optional<GuestVirt> PageCache::descriptor(Reader& reader, GuestVirt mapping,
                                               std::uint64_t index) const {
  std::uint64_t entry = reader.u64(mapping + at_.xa_head);
  bool whole = true;  // a tree of one entry, for index 0
  for (unsigned depth = 0; (entry & tag_mask) == internal_tag && entry > first_node; ++depth) {
    if (depth == max_depth) return std::nullopt;
    const GuestVirt node(entry - internal_tag);
    const std::uint8_t shift = reader.u8(node + at_.node_shift);
    if (!reader.ok() || shift > 63) return std::nullopt;
    if (whole && shift + slot_bits < 64 && index >> (shift + slot_bits) != 0) return std::nullopt;
    whole = false;
    std::uint64_t slot = index >> shift & slot_mask;
    entry = reader.u64(node + at_.node_slots + slot * 8);
    // A large folio stands in its first slot; the others say which that is.
    if ((entry & tag_mask) == internal_tag && entry <= first_node) {
      slot = entry >> 2 & slot_mask;
      entry = reader.u64(node + at_.node_slots + slot * 8);
    }
  }
  if (whole && index != 0) return std::nullopt;
  // Odd: not a page but the shadow of one that was dropped.
  if (!reader.ok() || entry == 0 || (entry & tag_mask) != 0) return std::nullopt;
  return GuestVirt(entry);
}

std::optional<GuestPhys> PageCache::page(Reader& reader, GuestVirt inode,
                                         std::uint64_t index) const {
  reader.clear_fault();
  const GuestVirt mapping = reader.pointer(inode + at_.i_mapping);
  const auto first = descriptor(reader, mapping, index);
  std::optional<GuestPhys> found;
  if (first && *first >= vmemmap_) {
    const std::uint64_t first_index = reader.u64(*first + at_.page_index);
    const bool of_file = reader.pointer(*first + at_.page_mapping) == mapping;
    const std::uint64_t frame = (*first - vmemmap_) / page_bytes_ + (index - first_index);
    const GuestPhys physical(frame << page_shift);
    if (reader.ok() && of_file && first_index <= index &&
        reader.memory().ram().contains(physical)) {
      found = physical;
    }
  }
  reader.clear_fault();
  return found;
}

bool CachedFile::read(std::uint64_t offset, std::span<std::byte> into) {
  if (offset > size_ || into.size() > size_ - offset) return false;
  std::size_t done = 0;
  while (done < into.size()) {
    const std::uint64_t at = offset + done;
    const auto physical = cache_.page(reader_, inode_, at >> page_shift);
    const std::byte* bytes = physical ? reader_.memory().page(*physical) : nullptr;
    if (bytes == nullptr) return false;
    const std::size_t within = at & (page_size - 1);
    const std::size_t length = std::min<std::size_t>(page_size - within, into.size() - done);
    std::memcpy(into.data() + done, bytes + within, length);
    done += length;
  }
  return true;
}

}  // namespace vmsight
