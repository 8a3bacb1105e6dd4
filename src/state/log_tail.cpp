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

void LogTail::remember(const std::vector<LogRecord>& log) {
  constexpr std::size_t max_marks = 1'000'000;  // no ring of a kernel holds more
  std::vector<Mark> marks;
  for (const LogRecord& record : log) marks.emplace_back(record.sequence, record.time_ns);
  std::sort(marks.begin(), marks.end());
  const Mark beyond{marks.empty() ? 0 : marks.back().first + 1, 0};
  const auto kept = std::lower_bound(marks_.begin(), marks_.end(), beyond);
  if (!marks.empty() && beyond.first == 0) return marks_.swap(marks);  // the last number there is
  marks.insert(marks.end(), kept, marks_.end());
  if (marks.size() > max_marks) marks.resize(max_marks);
  marks_ = std::move(marks);
}

void LogTail::take(State& state) {
  auto& log = state.kernel_log;
  remember(log);
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
