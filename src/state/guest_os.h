// What the kernel says of itself: uname, uptime, command line.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "state/context.h"

namespace vmsight {

class Members;

class OsReader {
 public:
  static Result<OsReader> resolve(Kernel& kernel);
  /// Fills State::os. The uptime is that of the kernel's last update of its clock, which an idle
  /// guest makes only when it wakes. The clock is read past caches, under its sequence count.
  void read(Context& context) const;

 private:
  /// From its sequence count on: as much as a struct timekeeper and the count need.
  using ClockBytes = std::array<std::byte, 512>;
  enum class ClockReading { whole, torn, failed };
  ClockReading read_clock(GuestMemory& memory, const AddressSpace& space, ClockBytes& bytes) const;
  void resolve_clock(Members& members);
  void read_names(Context& context) const;
  void read_uptime(Context& context) const;
  void read_command_line(Context& context) const;
  void read_memory_size(Context& context) const;

  GuestVirt names_, clock_, command_line_;  // the clock: where its sequence count is
  GuestVirt total_pages_;                   // null if this kernel has another name for it
  Member sysname_, nodename_, release_, version_, machine_;
  // From clock_.
  std::uint32_t base_ = 0, nsec_ = 0, shift_ = 0, offs_boot_ = 0, offs_real_ = 0;
};

/// Nanoseconds since boot of a timekeeper: its monotonic base, what it counted since (a shifted
/// number of nanoseconds), and the time slept.
std::uint64_t boot_time_ns(std::uint64_t base, std::uint64_t shifted_nsec, unsigned shift,
                           std::uint64_t offs_boot);

}  // namespace vmsight
