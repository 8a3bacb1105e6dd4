#include "state/kernel_log.h"

#include <fmt/format.h>

#include "state/members.h"

namespace vmsight {
namespace {

// kernel/printk/printk_ringbuffer.h: the top two bits of a descriptor's state_var are its state,
// the others the id of its record. Only finalised records are complete and stay as they are.
constexpr unsigned state_shift = 62;
constexpr std::uint64_t id_mask = (1ULL << state_shift) - 1;
constexpr std::uint64_t finalized = 2;
// Both positions odd: the record has no block. 3 says that its text is empty, 1 that it was lost.
constexpr std::uint64_t empty_text = 3;
constexpr std::uint64_t block_header = 8;

// Bounds on our memory: logs of up to 128 MiB, a record for every 32 bytes.
constexpr std::uint64_t max_size_bits = 27, max_count_bits = 22;

}  // namespace

std::optional<LogBlock> log_block(std::uint64_t begin, std::uint64_t next, unsigned size_bits) {
  const std::uint64_t mask = (1ULL << size_bits) - 1;
  LogBlock block;
  if (begin >> size_bits == next >> size_bits && begin < next) {
    block = {begin & mask, next - begin};
  } else if ((begin >> size_bits) + 1 == next >> size_bits && (next & mask) == 0) {
    block = {begin & mask, next - begin};  // ends where the ring ends
  } else if ((begin + mask + 1) >> size_bits == next >> size_bits) {
    block = {0, next & mask};
  } else {
    return std::nullopt;
  }
  if (block.size < block_header || block.offset % block_header != 0) return std::nullopt;
  return block;
}

Result<KernelLogReader> KernelLogReader::resolve(Kernel& kernel) {
  Members members(kernel);
  KernelLogReader self;
  self.ring_pointer_ = members.symbol("prb");
  self.count_bits_ = members.offset("printk_ringbuffer", "desc_ring.count_bits");
  self.descs_ = members.offset("printk_ringbuffer", "desc_ring.descs");
  self.infos_ = members.offset("printk_ringbuffer", "desc_ring.infos");
  self.head_id_ = members.offset("printk_ringbuffer", "desc_ring.head_id");
  self.tail_id_ = members.offset("printk_ringbuffer", "desc_ring.tail_id");
  self.size_bits_ = members.offset("printk_ringbuffer", "text_data_ring.size_bits");
  self.data_ = members.offset("printk_ringbuffer", "text_data_ring.data");
  self.desc_size_ = members.size("prb_desc");
  self.state_ = members.offset("prb_desc", "state_var");
  self.begin_ = members.offset("prb_desc", "text_blk_lpos.begin");
  self.next_ = members.offset("prb_desc", "text_blk_lpos.next");
  self.info_size_ = members.size("printk_info");
  self.seq_ = members.offset("printk_info", "seq");
  self.time_ = members.offset("printk_info", "ts_nsec");
  self.length_ = members.offset("printk_info", "text_len");
  self.facility_ = members.member("printk_info", "facility");
  self.level_ = members.member("printk_info", "level");
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

bool KernelLogReader::read_ring(Reader& reader, Ring& ring) const {
  const GuestVirt at = reader.pointer(ring_pointer_);
  const std::uint64_t count_bits = reader.u32(at + count_bits_);
  const std::uint64_t size_bits = reader.u32(at + size_bits_);
  if (count_bits > max_count_bits || size_bits > max_size_bits) reader.set_fault(at);
  ring.descriptors = reader.pointer(at + descs_);
  ring.infos = reader.pointer(at + infos_);
  ring.data = reader.pointer(at + data_);
  ring.tail = reader.u64(at + tail_id_) & id_mask;
  const std::uint64_t head = reader.u64(at + head_id_) & id_mask;
  if (!reader.ok()) return false;
  ring.size_bits = static_cast<unsigned>(size_bits);
  ring.text_left = 1ULL << size_bits;
  ring.index_mask = (1ULL << count_bits) - 1;
  // The head may have moved on since the tail was read: never more than a whole ring.
  ring.records = std::min(((head - ring.tail) & id_mask) + 1, ring.index_mask + 1);
  return true;
}

void KernelLogReader::read(Context& context) const {
  Reader& reader = context.reader;
  State& state = context.state;
  Ring ring;
  std::size_t overwritten = 0, unreadable = 0;
  reader.clear_fault();
  if (!read_ring(reader, ring)) {
    state.problem("kernel_log", fmt::format("no ring buffer at {}", *reader.fault()));
    return reader.clear_fault();
  }
  for (std::uint64_t i = 0; i < ring.records; ++i) {
    LogRecord record;
    const Outcome outcome = read_record(context, ring, (ring.tail + i) & id_mask, record);
    if (!reader.ok()) {
      ++unreadable;
    } else if (outcome == Outcome::record) {
      state.kernel_log.push_back(record);
    } else if (outcome == Outcome::overwritten) {
      ++overwritten;
    }
    reader.clear_fault();
  }
  if (unreadable != 0)
    state.problem("kernel_log", fmt::format("{} records are not readable", unreadable));
  if (overwritten != 0) {
    state.problem("kernel_log",
                  fmt::format("{} records were overwritten while they were read", overwritten));
  }
}

KernelLogReader::Outcome KernelLogReader::read_record(Context& context, Ring& ring,
                                                      std::uint64_t id, LogRecord& into) const {
  Reader& reader = context.reader;
  const std::uint64_t index = id & ring.index_mask;
  const GuestVirt descriptor = ring.descriptors + index * desc_size_;
  const GuestVirt info = ring.infos + index * info_size_;
  const std::uint64_t expected = finalized << state_shift | id;
  if (reader.u64(descriptor + state_) != expected) return Outcome::skipped;
  into.sequence = reader.u64(info + seq_);
  into.time_ns = reader.u64(info + time_);
  into.level = static_cast<unsigned>(reader.value(info, level_));
  into.facility = static_cast<unsigned>(reader.value(info, facility_));
  // Sequence numbers and ids count alike, so both name the same slot of the ring.
  if (((into.sequence ^ id) & ring.index_mask) != 0) return Outcome::overwritten;
  const Outcome outcome =
      read_text(context, ring, id, descriptor, reader.u16(info + length_), into);
  // The same state as before: what was read between belongs to this record.
  if (reader.u64(descriptor + state_) != expected) return Outcome::overwritten;
  return outcome;
}

KernelLogReader::Outcome KernelLogReader::read_text(Context& context, Ring& ring, std::uint64_t id,
                                                    GuestVirt descriptor, std::uint64_t length,
                                                    LogRecord& into) const {
  Reader& reader = context.reader;
  const std::uint64_t begin = reader.u64(descriptor + begin_);
  const std::uint64_t next = reader.u64(descriptor + next_);
  if ((begin & next & 1) != 0) {
    into.text = "";
    return begin == empty_text && next == empty_text ? Outcome::record : Outcome::skipped;
  }
  const std::optional<LogBlock> block = log_block(begin, next, ring.size_bits);
  if (!block) return Outcome::overwritten;
  const GuestVirt at = ring.data + block->offset;
  if ((reader.u64(at) & id_mask) != id) return Outcome::overwritten;
  const std::uint64_t size = std::min(length, block->size - block_header);
  if (size > ring.text_left) return Outcome::overwritten;
  ring.text_left -= size;
  const std::span<char> text = context.arena().allocate(size);
  reader.copy(at + block_header, std::as_writable_bytes(text));
  into.text = {text.data(), text.size()};
  return Outcome::record;
}

}  // namespace vmsight
