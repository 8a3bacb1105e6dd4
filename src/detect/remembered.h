// What conditions remember: when something was seen, for each key. See count() in condition.h.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace vmsight::detect {

/// Belongs to one condition of one VM. The keys are the guest's choice, so their number is bounded:
/// the one that was not seen for longest makes room.
class Memory {
 public:
  struct Bounds {
    std::size_t keys = 4096;
    std::size_t times = 4096 * 64;  // of all keys together
  };
  Memory() : Memory(Bounds{}) {}
  explicit Memory(Bounds bounds) : bounds_(bounds) {}
  Memory(const Memory&) = delete;  // by_key_ points into entries_
  Memory& operator=(const Memory&) = delete;
  Memory(Memory&&) = default;
  Memory& operator=(Memory&&) = default;

  struct Window {
    std::uint32_t which = 0;  // of the counts of a condition
    std::uint64_t length_ns = 0;
    std::size_t most = 1;  // times beyond this number need not be told apart
  };
  /// Notes that the key was seen now. How often that was so within the window, `most` if more.
  std::size_t count(const Window& window, std::string_view key, std::uint64_t now_ns);

  /// Keys that made room while their window had not passed: their counts were too low afterwards.
  std::uint64_t forgotten() const { return forgotten_; }
  std::size_t keys() const { return entries_.size(); }

 private:
  struct Entry {
    std::string key;
    std::uint64_t length_ns = 0;
    std::vector<std::uint64_t> times;  // the oldest first
  };
  Entry& entry_of(std::string key);
  void make_room(std::uint64_t now_ns);

  Bounds bounds_;
  std::list<Entry> entries_;  // the one seen last first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> by_key_;
  std::size_t times_ = 0;
  std::uint64_t forgotten_ = 0;
};

}  // namespace vmsight::detect
