// Host time.
#pragma once

#include <chrono>
#include <cstdint>

namespace vmsight {

inline std::uint64_t monotonic_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(now).count());
}

/// The host's wall clock, since 1970.
inline std::uint64_t wall_clock_ns() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(now).count());
}

/// Runs from its creation.
class Stopwatch {
 public:
  std::uint64_t elapsed_ns() const { return monotonic_ns() - start_; }

 private:
  std::uint64_t start_ = monotonic_ns();
};

}  // namespace vmsight
