// Output that never makes its producer wait: who reads it may be slow (a pager), and what waits for
// the producer may be a guest that stands.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "vmsight/result.h"

namespace vmsight {

class BackgroundOutput {
 public:
  static constexpr std::size_t most_waiting = 16u << 20;  // bytes

  /// Writes to `fd`, which the caller keeps open.
  explicit BackgroundOutput(int fd);
  BackgroundOutput(const BackgroundOutput&) = delete;
  BackgroundOutput& operator=(const BackgroundOutput&) = delete;
  ~BackgroundOutput();

  /// False if there is no room for it: then it is dropped, and counted.
  bool write(std::string_view text);
  std::uint64_t dropped() const { return dropped_; }
  bool failed();

  /// Waits until all is written. The error of the first write that failed.
  Result<void> finish();

 private:
  void work();

  int fd_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string waiting_;
  bool ends_ = false, writes_ = false;
  int errno_ = 0;
  std::uint64_t dropped_ = 0;
  std::thread thread_;
};

}  // namespace vmsight
