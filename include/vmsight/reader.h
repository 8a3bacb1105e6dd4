// Reading kernel structures: scalars and bytes at guest-virtual addresses, with sticky faults.
//
// A read that faults gives zero and sets the fault flag; a reader of an object checks ok() once,
// at its end, and throws the object away (or re-reads it) if it is set. So code that follows
// pointers stays as plain as the structure it walks, and nothing is zero-filled silently.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "vmsight/kernel.h"
#include "vmsight/memory.h"

namespace vmsight {
class ReadLog;
}

namespace VMSIGHT_PUBLIC vmsight {

class Reader {
 public:
  /// Both must outlive the reader. Views may begin and end, and pages be forgotten, as long as it
  /// lives: it reads of each page what the memory holds then.
  Reader(GuestMemory& memory, const AddressSpace& space) : memory_(memory), space_(space) {
    flush();
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  GuestMemory& memory() { return memory_; }
  const AddressSpace& space() const { return space_; }

  /// A scalar of kernel memory; 0 and a fault if it is not mapped.
  template <typename T>
  T get(GuestVirt va) {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    if (va.page_offset() + sizeof(T) <= page_size) {
      if (const std::byte* at = locate(va)) {
        std::memcpy(&value, at, sizeof(T));
        // The guest may change the bytes: the value in the register is the one we judge and use.
        if constexpr (sizeof(T) <= 8 && std::is_scalar_v<T>) asm volatile("" : "+r"(value));
        if (log_ != nullptr) [[unlikely]]
          record_value(va, value);
      }
      return value;
    }
    copy(va, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  std::uint8_t u8(GuestVirt va) { return get<std::uint8_t>(va); }
  std::uint16_t u16(GuestVirt va) { return get<std::uint16_t>(va); }
  std::uint32_t u32(GuestVirt va) { return get<std::uint32_t>(va); }
  std::uint64_t u64(GuestVirt va) { return get<std::uint64_t>(va); }
  GuestVirt pointer(GuestVirt va) { return GuestVirt(get<std::uint64_t>(va)); }

  /// A member of 1, 2, 4 or 8 bytes, or a bitfield, zero-extended.
  std::uint64_t value(GuestVirt object, const Member& member);

  /// Copies bytes; on a fault sets the flag and returns how many came before it.
  std::size_t copy(GuestVirt va, std::span<std::byte> into);

  /// The bytes at va up to the end of its page, or nullptr and a fault. For hot loops; the same
  /// caution as for GuestMemory::page. What is used of them is to be told to record().
  const std::byte* locate(GuestVirt va) {
    const std::uint64_t vpn = va.raw() >> page_shift;
    Slot& slot = slots_[(vpn ^ (vpn >> 8)) % slots_.size()];
    if (slot.vpn == vpn && slot.epoch == epoch_ && generation_ == memory_.generation()) [[likely]] {
      return slot.bytes + va.page_offset();
    }
    return locate_slow(va, slot);
  }

  /// A NUL-terminated string of at most into.size() bytes; not terminated if longer.
  std::string_view c_string(GuestVirt va, std::span<char> into);

  /// From now on all that is read is told to the log, which must outlive the reader; nullptr: to nobody.
  void record_to(ReadLog* log) { log_ = log; }
  ReadLog* log() const { return log_; }
  /// These bytes were read there, by other means than the functions above.
  void record(GuestVirt va, std::span<const std::byte> bytes);

  bool ok() const { return !fault_.has_value(); }
  /// The address that faulted first.
  std::optional<GuestVirt> fault() const { return fault_; }
  void clear_fault() { fault_.reset(); }
  /// For readers that find nonsense (a cycle, an absurd count): handled as a fault.
  void set_fault(GuestVirt va) {
    if (!fault_) fault_ = va;
  }

  /// Starts an object: refetch() will drop the pages read since then, to read it anew.
  void begin_object() {
    visited_.clear();
    ++epoch_;
    fault_.reset();
  }
  void refetch();
  /// Drops all remembered pages and the fault: the guest ran since, and may have moved them. Not
  /// needed after memory().refresh(), end_view() or forget(), which the reader sees by itself.
  void flush();

 private:
  struct Slot {
    std::uint64_t vpn = ~0ULL;
    std::uint64_t epoch = 0;
    const std::byte* bytes = nullptr;
  };
  template <typename T>
  void record_value(GuestVirt va, const T& value) {
    if constexpr (sizeof(T) <= 8) {
      std::uint64_t bits = 0;
      std::memcpy(&bits, &value, sizeof(T));
      record_word(va, bits, sizeof(T));
    } else {
      record(va, std::as_bytes(std::span(&value, 1)));
    }
  }
  void record_word(GuestVirt va, std::uint64_t value, std::uint32_t size);
  const std::byte* locate_slow(GuestVirt va, Slot& slot);
  void drop_slots();

  GuestMemory& memory_;
  const AddressSpace& space_;
  ReadLog* log_ = nullptr;
  std::optional<GuestVirt> fault_;
  std::uint64_t epoch_ = 1;
  std::uint64_t generation_ = 0;    // of the memory, when the slots were empty last
  std::vector<GuestVirt> visited_;  // pages this object touched
  std::array<Slot, 1024> slots_;
};

/// Of what moves all the time (clocks, counters): what is read in its life is not told to the log.
class Unrecorded {
 public:
  explicit Unrecorded(Reader& reader) : reader_(reader), log_(reader.log()) {
    reader.record_to(nullptr);
  }
  ~Unrecorded() { reader_.record_to(log_); }
  Unrecorded(const Unrecorded&) = delete;
  Unrecorded& operator=(const Unrecorded&) = delete;

 private:
  Reader& reader_;
  ReadLog* log_;
};

}  // namespace vmsight
