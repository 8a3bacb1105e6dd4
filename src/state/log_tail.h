// What is new in the kernel log, view after view: for whoever follows it.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "vmsight/state.h"

namespace vmsight {

class LogTail {
 public:
  /// Views in which a record that is being written is waited for.
  static constexpr unsigned patience = 4;

  /// A guest that came up again just where it was is told by its log: other times of the same numbers.
  bool is_of_another_boot(const std::vector<LogRecord>& log) const;

  /// Leaves in `state.kernel_log` what was not there before; of the first view all. A record that is being written
  /// is waited for, and so is what follows it; then it is given up, and that is a problem of the state.
  void take(State& state);

 private:
  using Mark = std::pair<std::uint64_t, std::uint64_t>;  // sequence number, time

  /// Numbers beyond the log's last stay: the first records of another boot have the times that the first ones before
  /// had, 0, and only those that follow tell the two apart.
  void remember(const std::vector<LogRecord>& log);

  std::vector<Mark> marks_;            // ascending
  std::optional<std::uint64_t> next_;  // sequence number
  unsigned waited_ = 0;                // views
};

}  // namespace vmsight
