// What was read from a guest that runs, so that it can be read again: if all of it is still the same, it was all
// there at once, at each moment between the last reading and the first reading again.
//
//   read a b c d        |  <- all of them were so here ->  |        read a b c d again
//
// A word that was changed and changed back in between is taken for one that stayed.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "vmsight/address.h"
#include "vmsight/kernel.h"
#include "vmsight/memory.h"
#include "vmsight/result.h"

namespace vmsight {

class Reader;

class ReadLog {
 public:
  /// What may be noted in all: of the largest guests a state does not fit, and cannot be proven as a whole.
  static constexpr std::size_t max_reads = std::size_t{1} << 22, max_bytes = std::size_t{64} << 20;

  /// Forgets everything.
  void begin();
  /// What is noted from now on is of the part called so, which must live as long as the log.
  void begin_part(std::string_view name);
  /// Of the kernel's memory; at most 8 bytes, in one page.
  void note_word(GuestVirt va, std::uint64_t value, std::uint32_t size) {
    if (reads_.size() == max_reads) return void(full_ = true);
    reads_.push_back({va.raw(), value, size});
  }
  /// The same, of any size.
  void note(GuestVirt va, std::span<const std::byte> bytes);
  /// There was nothing to be read.
  void note_absent(GuestVirt va) { note_word(va, 0, 0); }
  /// Of a process: `root` is its top page table; `is_short` if more was wanted, and is not there.
  void note_user(GuestPhys root, GuestVirt va, std::span<const std::byte> bytes, bool is_short);

  /// Something was left out: what is noted does not prove anything.
  bool is_full() const { return full_; }
  std::size_t reads() const { return reads_.size() + user_reads_.size(); }

  struct Change {
    std::string_view part;
    GuestVirt at;
  };
  /// Reads all of it again, past every cache, in a view of its own: what `memory` showed before is gone. The first
  /// that differs; nullopt if nothing does. Errors are those of the memory.
  Result<std::optional<Change>> changed(GuestMemory& memory, const AddressSpace& space) const;

 private:
  /// Up to 8 bytes, in one page, are in it; of more it has the place in long_. Of size 0: absent.
  struct Read {
    std::uint64_t va = 0, value = 0;
    std::uint32_t size = 0;
  };
  struct UserRead {
    GuestPhys root;
    GuestVirt va;
    std::size_t at = 0, size = 0;  // in long_
    bool is_short = false;
  };
  struct Part {
    std::string_view name;
    std::size_t reads = 0, user_reads = 0;  // when it began
  };
  static bool is_same(Reader& reader, const Read& read);
  std::optional<std::size_t> keep(std::span<const std::byte> bytes);
  std::string_view part_of(std::size_t index, std::size_t Part::*begin) const;

  std::vector<Read> reads_;
  std::vector<UserRead> user_reads_;
  std::vector<std::byte> long_;
  std::vector<Part> parts_;
  bool full_ = false;
};

}  // namespace vmsight
