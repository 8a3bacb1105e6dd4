// Where /proc/kcore has the guest's RAM: its ELF header lists the kernel's mappings, and those of
// the direct map tell their physical addresses. Pure; used in the guest by the agent and on the host
// by whoever reads kcore through another agent. Nothing is allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace vmsight::agent {

struct Segment {
  std::uint64_t start = 0;  // guest-physical
  std::uint64_t size = 0;
  std::uint64_t offset = 0;  // in kcore
};

inline constexpr std::size_t kcore_header_size = 64;
inline constexpr std::size_t kcore_max_head = 64u
                                              << 10;  // with program headers; the rest is left out

/// How many bytes the ELF header and its program headers take, by the former; nullopt if it is no
/// kcore of an x86-64 kernel.
std::optional<std::size_t> kcore_head_size(std::span<const std::byte> header);

/// The segments of RAM, ascending, without overlaps; as many as fit. `head` begins with the ELF
/// header. Returns how many there are: 0 if there is nothing to be found.
std::size_t find_segments(std::span<const std::byte> head, std::span<Segment> into);

/// The segment that holds this address, or nullptr.
const Segment* find_segment(std::span<const Segment> segments, std::uint64_t address);

}  // namespace vmsight::agent
