#include "support/synthetic_guest.h"

#include <algorithm>
#include <array>

namespace vmsight::test {
namespace {

constexpr std::uint64_t address_bits = 0x000ffffffffff000;

/// The index into the table of a level: 1 is the page table, 5 the top of five levels.
unsigned table_index(GuestVirt va, unsigned level) {
  return static_cast<unsigned>(va.raw() >> (page_shift + 9 * (level - 1))) & 511;
}

/// The level whose entry maps a page of this size.
unsigned leaf_level(MapSize size) {
  return size == MapSize::page_4k ? 1 : size == MapSize::page_2m ? 2 : 3;
}

}  // namespace

SyntheticGuest::SyntheticGuest(SyntheticOptions options)
    : options_(std::move(options)), memory_(options_.ram) {
  if (options_.five_level && options_.page_offset == SyntheticOptions{}.page_offset) {
    options_.page_offset = GuestVirt(0xff11000000000000);
  }
  next_free_ = options_.ram.front().start + std::min(mib, options_.ram.front().size / 4);
  root_ = allocate_phys(page_size, page_size);
  for (const RamRange& range : memory_.ram().ranges()) {
    const std::uint64_t flags = options_.direct_map_executes ? 0 : pte::no_execute;
    map_window(direct(range.start), range.start, range.size, flags);
  }
  map_window(options_.image, options_.image_phys, options_.image_size, 0);
}

AddressSpace SyntheticGuest::space() const {
  AddressSpace space = walked_space();
  space.set_direct_map({.start = options_.page_offset,
                        .end = options_.page_offset + memory_.ram().end().raw(),
                        .delta = options_.page_offset.raw()});
  space.set_image({.start = options_.image,
                   .end = options_.image + options_.image_size,
                   .delta = options_.image.raw() - options_.image_phys.raw()});
  return space;
}

GuestPhys SyntheticGuest::allocate_phys(std::uint64_t size, std::uint64_t align) {
  const GuestPhys image_end = options_.image_phys + options_.image_size;
  for (const RamRange& range : memory_.ram().ranges()) {
    if (range.end() <= next_free_) continue;
    const std::uint64_t from = std::max(next_free_, range.start).raw();
    GuestPhys at((from + align - 1) & ~(align - 1));
    if (at < image_end && at + size > options_.image_phys) {
      at = GuestPhys((image_end.raw() + align - 1) & ~(align - 1));
    }
    if (at >= range.end() || size > range.end() - at) continue;
    next_free_ = at + size;
    return at;
  }
  VMSIGHT_CHECK(!"the synthetic guest has no memory left");
  return {};
}

GuestVirt SyntheticGuest::place(std::span<const std::byte> bytes, std::uint64_t align) {
  const GuestPhys at = allocate_phys(std::max<std::size_t>(bytes.size(), 1), align);
  memory_.write(at, bytes);
  return direct(at);
}

GuestVirt SyntheticGuest::place_string(std::string_view text) {
  const GuestVirt at = allocate(text.size() + 1, 8);
  write(at, std::as_bytes(std::span(text)));
  return at;
}

void SyntheticGuest::link_list(GuestVirt head, std::span<const GuestVirt> nodes) {
  // struct list_head { next, prev }
  GuestVirt previous = head;
  for (const GuestVirt node : nodes) {
    put_pointer(previous, node);
    put_pointer(node + 8, previous);
    previous = node;
  }
  put_pointer(previous, head);
  put_pointer(head + 8, previous);
}

SyntheticGuest::Entry SyntheticGuest::entry_of(GuestPhys root, GuestVirt va) {
  GuestPhys table = root;
  for (unsigned level = levels(); level > 0; --level) {
    const GuestPhys at = table + 8 * table_index(va, level);
    const auto entry = memory_.get<std::uint64_t>(at);
    VMSIGHT_CHECK((entry & pte::present) != 0);
    if (level == 1 || (entry & pte::large) != 0) return {at, level};
    table = GuestPhys(entry & address_bits);
  }
  VMSIGHT_CHECK(!"a walk ends at level 1");
  return {};
}

void SyntheticGuest::write_in(GuestPhys root, GuestVirt to, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const Entry entry = entry_of(root, to);
    const std::uint64_t inside = (1ULL << (page_shift + 9 * (entry.level - 1))) - 1;
    const std::uint64_t frame = memory_.get<std::uint64_t>(entry.at) & address_bits & ~inside;
    const std::size_t length = std::min<std::size_t>(page_size - to.page_offset(), bytes.size());
    memory_.write(GuestPhys(frame | (to.raw() & inside)), bytes.first(length));
    bytes = bytes.subspan(length);
    to = to + length;
  }
}

/// The table that this entry points to, made if there is none.
GuestPhys SyntheticGuest::next_table(GuestPhys entry) {
  const auto value = memory_.get<std::uint64_t>(entry);
  VMSIGHT_CHECK((value & pte::large) == 0);  // already mapped by a larger page
  if ((value & pte::present) != 0) return GuestPhys(value & address_bits);
  const GuestPhys table = allocate_phys(page_size, page_size);
  // As Linux does: upper levels allow everything, the last entry decides.
  memory_.put(entry, table.raw() | pte::present | pte::writable | pte::user);
  return table;
}

void SyntheticGuest::map_in(GuestPhys root, GuestVirt va, GuestPhys pa, MapSize size,
                            std::uint64_t flags) {
  const unsigned leaf = leaf_level(size);
  GuestPhys table = root;
  for (unsigned level = levels(); level > leaf; --level) {
    table = next_table(table + 8 * table_index(va, level));
  }
  const std::uint64_t large = leaf > 1 ? pte::large : 0;
  memory_.put(table + 8 * table_index(va, leaf), pa.raw() | flags | large);
}

void SyntheticGuest::map_window(GuestVirt va, GuestPhys pa, std::uint64_t size,
                                std::uint64_t flags) {
  for (std::uint64_t done = 0; done < size;) {
    const std::uint64_t left = size - done;
    const std::uint64_t both = (va.raw() + done) | (pa.raw() + done);
    const MapSize step = both % gib == 0 && left >= gib             ? MapSize::page_1g
                         : both % (2 * mib) == 0 && left >= 2 * mib ? MapSize::page_2m
                                                                    : MapSize::page_4k;
    map(va + done, pa + done, step, pte::present | pte::writable | flags);
    done += static_cast<std::uint64_t>(step);
  }
}

void SyntheticGuest::map_scattered(GuestVirt va, std::uint64_t size) {
  for (std::uint64_t done = 0; done < size; done += page_size) {
    allocate_phys(page_size, page_size);  // a gap
    map(va + done, allocate_phys(page_size, page_size));
  }
}

void SyntheticGuest::unmap(GuestVirt va) { memory_.put(entry_of(root_, va).at, std::uint64_t{0}); }

GuestPhys SyntheticGuest::new_address_space() {
  const GuestPhys root = allocate_phys(page_size, page_size);
  // The upper half of the top level is the kernel's, shared by all.
  memory_.write(root + page_size / 2, memory_.at(root_ + page_size / 2).first(page_size / 2));
  return root;
}

}  // namespace vmsight::test
