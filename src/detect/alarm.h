// Alarms, and how their repeats are summed up.
#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "detect/rule.h"
#include "detect/value.h"

namespace vmsight::detect {

/// A program that is run for an alarm, with the alarm on its standard input.
struct AlarmCommand {
  std::vector<std::string> arguments;  // its name first, looked for in PATH
  std::chrono::milliseconds limit{};   // then it is killed, with its process group
};

/// That a rule holds. Texts are the guest's raw bytes, but for `output`, which is escaped.
struct Alarm {
  std::string rule;
  Priority priority = Priority::notice;
  std::vector<std::string> tags;
  std::string vm;
  std::uint64_t time_ns = 0;  // of the host's clock, since 1970
  std::string output;
  std::vector<std::pair<std::string, Value>> fields;  // addresses as texts
  nlohmann::json evidence;                            // null: there is no more to say
  // Of a sum of repeats: how many, and the times of the first and the last.
  std::uint64_t count = 1, first_ns = 0, last_ns = 0;
  std::int32_t pid = 0;                  // of the process that it is about; 0: of none
  std::vector<AlarmCommand> commands{};  // what its rule has run for it; no format shows them
};

/// Lets the first alarm of a key through and counts those that repeat it: when its time has passed,
/// they come as one alarm, the last of them, with their number. Then the time begins anew, until
/// one passes without a repeat. What is counted is never dropped: ask due() from time to time, and
/// flush() at the end.
class AlarmLimiter {
 public:
  explicit AlarmLimiter(std::size_t max_keys = 4096) : max_keys_(max_keys) {}
  AlarmLimiter(const AlarmLimiter&) = delete;  // by_key_ points into entries_
  AlarmLimiter& operator=(const AlarmLimiter&) = delete;
  AlarmLimiter(AlarmLimiter&&) = default;
  AlarmLimiter& operator=(AlarmLimiter&&) = default;

  /// `key`, with the rule and the VM of the alarm, says which alarms are repeats; `every_ns` 0: none is. Times are of
  /// the caller's clock. What is to be delivered now, the oldest first.
  std::vector<Alarm> add(Alarm alarm, std::string_view key, std::uint64_t every_ns,
                         std::uint64_t now_ns);
  /// Sums whose time has passed.
  std::vector<Alarm> due(std::uint64_t now_ns);
  /// All sums, now.
  std::vector<Alarm> flush();
  /// When due() has something to do next, if it ever has.
  std::optional<std::uint64_t> next_due_ns() const;

  /// Keys that made room for others before their time: their sums were delivered early.
  std::uint64_t pushed_out() const { return pushed_out_; }
  std::size_t keys() const { return entries_.size(); }

 private:
  struct Entry {
    std::string key;
    std::uint64_t every_ns = 0, begun_ns = 0;
    std::optional<Alarm> sum{};
  };
  using Entries = std::list<Entry>;
  void begin(std::string key, std::uint64_t every_ns, std::uint64_t now_ns,
             std::vector<Alarm>& deliver);
  static void repeat(Entry& entry, Alarm alarm);
  static void take_sum(Entry& entry, std::vector<Alarm>& deliver);
  void remove(Entries::iterator entry);

  std::size_t max_keys_;
  Entries entries_;  // the one begun first first
  std::unordered_map<std::string_view, Entries::iterator> by_key_;
  std::uint64_t next_end_ns_ = ~0ULL;  // no entry is over before
  std::uint64_t pushed_out_ = 0;
};

}  // namespace vmsight::detect
