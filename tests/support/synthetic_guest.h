// A guest made by hand: RAM with real x86-64 page tables, a direct map, a kernel image window
// and whatever objects a test places in it. Kernel and state code reads it as it reads a VM.
//
//   physical   0 .. 1 MiB | page tables and objects -> | image | <- more objects ... end
//   virtual    page_offset + pa     direct map of all RAM          (2 MiB and 1 GiB pages)
//              image + (pa - image_phys)                           (2 MiB pages)
//              anything else: map()                                (4 KiB, 2 MiB, 1 GiB pages)
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "kernel/x86_64/x86_64.h"
#include "support/byte_memory.h"
#include "vmsight/kernel.h"

namespace vmsight::test {

inline constexpr std::uint64_t kib = 1ULL << 10, mib = 1ULL << 20, gib = 1ULL << 30;

enum class MapSize : std::uint64_t { page_4k = 4 * kib, page_2m = 2 * mib, page_1g = gib };

/// Bits of a page table entry (Intel SDM vol. 3A, 4.5).
namespace pte {
inline constexpr std::uint64_t present = 1, writable = 2, user = 4, large = 1ULL << 7,
                               no_execute = 1ULL << 63;
}

struct SyntheticOptions {
  std::vector<ByteRange> ram{{GuestPhys(0), 64 * mib}};
  bool five_level = false;
  GuestVirt page_offset{0xffff888000000000};  // 5 levels use 0xff11000000000000
  GuestVirt image{0xffffffff81000000};        // 2 MiB aligned
  GuestPhys image_phys{16 * mib};             // the same
  std::uint64_t image_size = 8 * mib;         // the same
  bool direct_map_executes = true;            // kernels forbid that
};

class SyntheticGuest {
 public:
  explicit SyntheticGuest(SyntheticOptions options = {});

  ByteMemory& memory() { return memory_; }
  const SyntheticOptions& options() const { return options_; }

  /// The kernel's space with its two windows set; or by page tables alone, which must agree.
  AddressSpace space() const;
  AddressSpace walked_space() const { return AddressSpace(x86_64, root_, levels()); }
  GuestPhys root() const { return root_; }

  /// Zeroed physical memory that nothing else uses. Never freed.
  GuestPhys allocate_phys(std::uint64_t size, std::uint64_t align = 64);
  /// The same, as an address in the direct map: where kmalloc would put an object.
  GuestVirt allocate(std::uint64_t size, std::uint64_t align = 64) {
    return direct(allocate_phys(size, align));
  }
  GuestVirt direct(GuestPhys physical) const { return options_.page_offset + physical.raw(); }
  /// A place in the image window.
  GuestVirt image(std::uint64_t offset) const { return options_.image + offset; }

  /// Copies an object or a string (with its NUL) to new memory; returns where.
  GuestVirt place(std::span<const std::byte> bytes, std::uint64_t align = 64);
  GuestVirt place_string(std::string_view text);

  /// Writes through the page tables; the bytes must be mapped (a test that is wrong aborts).
  void write(GuestVirt to, std::span<const std::byte> bytes) { write_in(root_, to, bytes); }
  void write_in(GuestPhys root, GuestVirt to, std::span<const std::byte> bytes);
  template <typename T>
  void put(GuestVirt to, const T& value) {
    write(to, std::as_bytes(std::span(&value, 1)));
  }
  void put_pointer(GuestVirt to, GuestVirt value) { put(to, value.raw()); }
  /// A circular list_head from `head` through `nodes`: what list_add_tail builds.
  void link_list(GuestVirt head, std::span<const GuestVirt> nodes);

  /// Maps a page in the kernel's table, or in that of another root.
  void map(GuestVirt va, GuestPhys pa, MapSize size = MapSize::page_4k,
           std::uint64_t flags = pte::present | pte::writable) {
    map_in(root_, va, pa, size, flags);
  }
  void map_in(GuestPhys root, GuestVirt va, GuestPhys pa, MapSize size = MapSize::page_4k,
              std::uint64_t flags = pte::present | pte::writable | pte::user);
  /// Maps freshly allocated 4 KiB pages that are not neighbours physically: as vmalloc does.
  void map_scattered(GuestVirt va, std::uint64_t size);
  void unmap(GuestVirt va);
  /// A new table with the kernel's half in it: that of a process.
  GuestPhys new_address_space();
  /// The entry that maps `va`, for tests to corrupt. The address must be mapped.
  struct Entry {
    GuestPhys at;
    unsigned level = 1;  // 1: 4 KiB, 2: 2 MiB, 3: 1 GiB
  };
  Entry entry_of(GuestPhys root, GuestVirt va);

 private:
  unsigned levels() const { return options_.five_level ? 5 : 4; }
  GuestPhys next_table(GuestPhys entry);
  void map_window(GuestVirt va, GuestPhys pa, std::uint64_t size, std::uint64_t flags);

  SyntheticOptions options_;
  ByteMemory memory_;
  GuestPhys next_free_{};
  GuestPhys root_{};
};

}  // namespace vmsight::test
