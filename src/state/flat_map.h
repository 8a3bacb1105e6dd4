// A hash map for one view: guest addresses to small values. Clearing it costs nothing and keeps
// its memory, because each slot remembers in which round it was filled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "vmsight/address.h"

namespace vmsight {

template <typename Value>
class FlatMap {
 public:
  void clear() {
    ++round_;
    size_ = 0;
  }
  std::size_t size() const { return size_; }

  /// nullptr if the pair is not in the map. Valid until the next insert.
  const Value* find(GuestVirt a, GuestVirt b = GuestVirt(0)) const {
    if (slots_.empty()) return nullptr;
    const Slot& slot = slots_[place(a.raw(), b.raw())];
    return slot.round == round_ ? &slot.value : nullptr;
  }

  /// Adds or replaces.
  Value& insert(GuestVirt a, GuestVirt b, const Value& value) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[place(a.raw(), b.raw())];
    if (slot.round != round_) ++size_;
    slot = {a.raw(), b.raw(), round_, value};
    return slot.value;
  }
  Value& insert(GuestVirt a, const Value& value) { return insert(a, GuestVirt(0), value); }

 private:
  struct Slot {
    std::uint64_t a = 0, b = 0;
    std::uint64_t round = 0;
    Value value{};
  };

  /// Where the pair is, or where it would go. There is always a free slot.
  std::size_t place(std::uint64_t a, std::uint64_t b) const {
    std::size_t at = ((a ^ (b * 0x9e3779b97f4a7c15ULL)) * seed_) >> shift_;
    while (slots_[at].round == round_ && (slots_[at].a != a || slots_[at].b != b)) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return at;
  }

  void grow() {
    std::vector<Slot> old = std::move(slots_);
    const std::size_t capacity = old.empty() ? 256 : old.size() * 2;
    slots_.assign(capacity, Slot{});
    shift_ = 64 - __builtin_ctzll(capacity);
    for (const Slot& slot : old) {
      if (slot.round == round_) slots_[place(slot.a, slot.b)] = slot;
    }
  }

  /// Odd, and not known to the guest: it cannot choose addresses that collide. One a process, for
  /// to ask for it costs more than many a view.
  static std::uint64_t random_seed() {
    static const std::uint64_t seed = [] {
      std::random_device device;
      return (std::uint64_t{device()} << 32 | device()) | 1;
    }();
    return seed;
  }

  std::vector<Slot> slots_;  // a power of two, at most half full
  std::uint64_t seed_ = random_seed();
  std::uint64_t round_ = 1;
  std::size_t size_ = 0;
  unsigned shift_ = 63;
};

}  // namespace vmsight
