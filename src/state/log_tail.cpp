#include "state/log_tail.h"

#include <fmt/format.h>
#include <algorithm>

namespace vmsight {

bool LogTail::is_of_another_boot(const std::vector<LogRecord>& log) const {
  return std::any_of(log.begin(), log.end(), [&](const LogRecord& record) {
    const auto known = std::lower_bound(marks_.begin(), marks_.end(), Mark{record.sequence, 0});
    return known != marks_.end() && known->first == record.sequence &&
           known->second != record.time_ns;
  });
}

void LogTail::take(State& state) {
  auto& log = state.kernel_log;
  marks_.clear();
  for (const LogRecord& record : log) marks_.emplace_back(record.sequence, record.time_ns);
  std::sort(marks_.begin(), marks_.end());
  std::erase_if(log, [&](const LogRecord& record) { return next_ && record.sequence < *next_; });
  const bool is_first = !next_;  // what is missing then stays so
  for (std::size_t i = 0; i < log.size(); ++i) {
    if (!is_first && log[i].sequence > *next_) {
      if (++waited_ < patience) return log.resize(i);
      state.problem("kernel_log", fmt::format("{} records before number {} were not seen",
                                              log[i].sequence - *next_, log[i].sequence));
    }
    waited_ = 0;
    if (log[i].sequence != ~std::uint64_t{0})
      next_ = std::max(next_.value_or(0), log[i].sequence + 1);
  }
}

}  // namespace vmsight
