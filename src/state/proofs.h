// Proofs of no change: what was read from a live guest is right if the words that lead to it are
// the same afterwards.
//
// A reader notes the words it relied on (pointers, identities, sequence counts) with the owner of
// the object. At the end of the view all of them are read again, past every cache, in one batch;
// the owners of words that differ must be read anew.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "state/flat_map.h"
#include "vmsight/reader.h"

namespace vmsight {

class Proofs {
 public:
  using Owner = std::uint32_t;
  /// 320 MiB of them. Ten thousand processes with a hundred files each need three million.
  static constexpr std::size_t max_words = std::size_t{1} << 23;

  /// Nothing is noted unless the guest may run while we read.
  void begin(bool live, Owner owner = 0);
  bool live() const { return live_; }
  void set_owner(Owner owner) { owner_ = owner; }

  /// `value` is what was read at `va`. Gives it back.
  template <typename T>
  T expect(Reader& reader, GuestVirt va, T value) {
    static_assert(sizeof(T) <= 8);
    if (live_) {
      std::uint64_t bits = 0;
      std::memcpy(&bits, &value, sizeof(T));
      note(reader, va, bits, sizeof(T));
    }
    return value;
  }
  GuestVirt expect(Reader& reader, GuestVirt va, GuestVirt value) {
    return GuestVirt(expect(reader, va, value.raw()));
  }

  /// Reads every word again; the owners whose words changed, each once, ascending.
  Result<std::vector<Owner>> changed(GuestMemory& memory);

  std::size_t size() const { return words_.size(); }
  /// More was noted than is kept, so that what came last is not proven.
  bool is_full() const { return words_.size() >= max_words; }
  /// Forgets what was noted since the size was this.
  void truncate(std::size_t size) { words_.resize(size); }

 private:
  struct Word {
    GuestPhys at;
    std::uint64_t value = 0;
    std::uint32_t run = 0;
    Owner owner = 0;
    std::uint8_t size = 0;
  };
  /// Words near each other are read as one: a system call charges for each element, hardly for
  /// its length.
  struct Run {
    GuestPhys start, end;
  };
  void note(Reader& reader, GuestVirt va, std::uint64_t value, std::uint8_t size);
  std::uint32_t run_of(GuestPhys at, std::uint8_t size);

  std::vector<Word> words_;
  std::vector<Run> runs_;
  FlatMap<std::uint32_t> run_by_place_;
  Owner owner_ = 0;
  bool live_ = false;

  std::vector<FreshRead> reads_;  // scratch of changed(), kept for its allocation
  std::vector<std::byte> copies_;
};

}  // namespace vmsight
