// How x86-64 page tables map the kernel's image.
//
//   virtual    0xffffffff80000000 + i * 2 MiB  ...
//
// Entry i of the page directory under 511/510 of the kernel's table (511/511/510 with five levels)
// maps the first 2 MiB of text: that gives i.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "kernel/architecture.h"

namespace vmsight::x86 {

/// The 1 GiB of virtual addresses that holds the kernel image, as a page table maps it.
class ImageDirectory {
 public:
  static constexpr std::size_t slots = 512;
  static constexpr std::uint64_t slot_size = 2U << 20;
  static constexpr GuestVirt start{0xffffffff80000000ULL};  // __START_KERNEL_map

  /// nullopt if the table has no such directory.
  static std::optional<ImageDirectory> read(GuestMemory& memory, GuestPhys root, unsigned levels);

  /// The physical address of the start of the i-th 2 MiB, if that is known from any of its
  /// pages: a user table under page-table isolation maps but a few of them.
  std::optional<GuestPhys> slot(std::size_t i) const { return slots_[i]; }
  /// The address where this image is mapped, if any part of it is.
  std::optional<GuestVirt> find(GuestPhys text, std::uint64_t size) const;

 private:
  std::array<std::optional<GuestPhys>, slots> slots_;
};

// As Architecture has them.
std::optional<Architecture::ImagePlace> find_image(GuestMemory& memory, GuestPhys table,
                                                   GuestPhys text);
std::vector<GuestPhys> mapped_images(GuestMemory& memory, std::span<const std::uint64_t> registers);
bool maps_image(GuestMemory& memory, std::span<const std::uint64_t> registers, GuestPhys text,
                std::uint64_t size, GuestVirt at);

}  // namespace vmsight::x86
