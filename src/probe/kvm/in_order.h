// Events of several vCPUs, by their times. Each of them takes its time before it has its place in the ring, so
// they come there nearly in order: what is held back for a moment can be put right.
//
//   ring   9 7 8 12 11 ...  ->  held back: those of the last `window_ns`  ->  7 8 9 11 12
#pragma once

#include <cstdint>
#include <deque>

#include "probe/engine.h"

namespace vmsight::kvm {

class InOrder {
 public:
  /// A vCPU's thread that loses its CPU in the middle of an event for longer than that comes late.
  static constexpr std::uint64_t window_ns = 50'000'000;
  static constexpr std::size_t max_waiting = 1u << 16;

  void add(Hit&& hit);
  /// Tells those that are older than the window before `now_ns`, and what is beyond `max_waiting`.
  std::size_t tell(std::uint64_t now_ns, const ProbeEngine::Sink& sink);
  std::size_t tell_all(const ProbeEngine::Sink& sink);

  bool is_empty() const { return waiting_.empty(); }
  std::uint64_t oldest_ns() const { return waiting_.front().time_ns; }
  std::uint64_t newest_ns() const { return waiting_.back().time_ns; }
  /// How many were told after a younger one.
  std::uint64_t late() const { return late_; }

 private:
  void tell_first(const ProbeEngine::Sink& sink);

  std::deque<Hit> waiting_;  // by time; of the same time as they came
  std::uint64_t last_ns_ = 0, late_ = 0;
};

}  // namespace vmsight::kvm
