// The kernel's log, read from the printk ring buffer.
#pragma once

#include <cstdint>
#include <optional>

#include "state/context.h"

namespace vmsight {

/// A run of text in the data ring: where it begins, and how many bytes it has at most.
struct LogBlock {
  std::uint64_t offset = 0, size = 0;  // of the block; its first 8 bytes are its record's id
};

/// Resolves logical positions of the data ring (of 2^size_bits bytes), as get_data() of
/// kernel/printk/printk_ringbuffer.c does. A block never wraps: one that does not fit at the end
/// of the ring is stored at its start.
///
///   begin ............ next                 in the same turn of the ring: at begin
///   begin .... | ..... next                 next in the turn after: at 0
///
/// nullopt if the positions contradict each other.
std::optional<LogBlock> log_block(std::uint64_t begin, std::uint64_t next, unsigned size_bits);

class KernelLogReader {
 public:
  static Result<KernelLogReader> resolve(Kernel& kernel);
  /// Every finalised record, oldest first: what /dev/kmsg shows. Records that the guest
  /// overwrites while they are read are left out, as the kernel's own readers do.
  void read(Context& context) const;

 private:
  struct Ring {
    GuestVirt descriptors, infos, data;
    std::uint64_t tail = 0, records = 0, index_mask = 0;
    unsigned size_bits = 0;
    std::uint64_t text_left = 0;  // as much text as the ring can hold, and no more
  };
  enum class Outcome { record, skipped, overwritten };

  bool read_ring(Reader& reader, Ring& ring) const;
  Outcome read_record(Context& context, Ring& ring, std::uint64_t id, LogRecord& into) const;
  Outcome read_text(Context& context, Ring& ring, std::uint64_t id, GuestVirt descriptor,
                    std::uint64_t length, LogRecord& into) const;

  GuestVirt ring_pointer_;
  std::uint32_t count_bits_ = 0, descs_ = 0, infos_ = 0, head_id_ = 0, tail_id_ = 0;
  std::uint32_t size_bits_ = 0, data_ = 0;
  std::uint32_t desc_size_ = 0, state_ = 0, begin_ = 0, next_ = 0;
  std::uint32_t info_size_ = 0, seq_ = 0, time_ = 0, length_ = 0;
  Member facility_, level_;
};

}  // namespace vmsight
