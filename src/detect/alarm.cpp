#include "detect/alarm.h"

#include <algorithm>
#include <iterator>

namespace vmsight::detect {
namespace {

/// The time after which it is over; the end of all times if there is none.
std::uint64_t end_of(std::uint64_t begun_ns, std::uint64_t every_ns) {
  return begun_ns > ~0ULL - every_ns ? ~0ULL : begun_ns + every_ns;
}

}  // namespace

void AlarmLimiter::take_sum(Entry& entry, std::vector<Alarm>& deliver) {
  if (entry.sum) deliver.push_back(*std::move(entry.sum));
  entry.sum.reset();
}

void AlarmLimiter::remove(Entries::iterator entry) {
  by_key_.erase(entry->key);
  entries_.erase(entry);
}

void AlarmLimiter::begin(std::string key, std::uint64_t every_ns, std::uint64_t now_ns,
                         std::vector<Alarm>& deliver) {
  while (!entries_.empty() && entries_.size() >= max_keys_) {
    take_sum(entries_.front(), deliver);
    remove(entries_.begin());
    ++pushed_out_;
  }
  entries_.push_back({.key = std::move(key), .every_ns = every_ns, .begun_ns = now_ns});
  by_key_.emplace(entries_.back().key, std::prev(entries_.end()));
  next_end_ns_ = std::min(next_end_ns_, end_of(now_ns, every_ns));
}

/// The sum is the last of its alarms, with the times of all.
void AlarmLimiter::repeat(Entry& entry, Alarm alarm) {
  if (entry.sum) {
    alarm.count += entry.sum->count;
    alarm.first_ns = entry.sum->first_ns;
  }
  entry.sum = std::move(alarm);
}

std::vector<Alarm> AlarmLimiter::add(Alarm alarm, std::string_view key, std::uint64_t every_ns,
                                     std::uint64_t now_ns) {
  std::vector<Alarm> deliver = due(now_ns);
  if (alarm.first_ns == 0) alarm.first_ns = alarm.time_ns;
  if (alarm.last_ns == 0) alarm.last_ns = alarm.time_ns;
  if (every_ns == 0) {
    deliver.push_back(std::move(alarm));
    return deliver;
  }
  std::string whole = alarm.vm + '\0' + alarm.rule + '\0';
  whole += key;
  if (const auto known = by_key_.find(whole); known != by_key_.end()) {
    repeat(*known->second, std::move(alarm));
    return deliver;
  }
  begin(std::move(whole), every_ns, now_ns, deliver);
  deliver.push_back(std::move(alarm));
  return deliver;
}

std::vector<Alarm> AlarmLimiter::due(std::uint64_t now_ns) {
  std::vector<Alarm> deliver;
  if (now_ns < next_end_ns_) return deliver;
  next_end_ns_ = ~0ULL;
  auto entry = entries_.begin();
  for (std::size_t left = entries_.size(); left > 0; --left) {
    const auto one = entry++;
    const bool is_over = now_ns >= end_of(one->begun_ns, one->every_ns);
    if (is_over && !one->sum) {
      remove(one);
      continue;
    }
    if (is_over) {
      take_sum(*one, deliver);
      one->begun_ns = now_ns;
      entries_.splice(entries_.end(), entries_, one);
    }
    next_end_ns_ = std::min(next_end_ns_, end_of(one->begun_ns, one->every_ns));
  }
  return deliver;
}

std::vector<Alarm> AlarmLimiter::flush() {
  std::vector<Alarm> deliver;
  for (Entry& entry : entries_) take_sum(entry, deliver);
  by_key_.clear();
  entries_.clear();
  next_end_ns_ = ~0ULL;
  return deliver;
}

std::optional<std::uint64_t> AlarmLimiter::next_due_ns() const {
  std::optional<std::uint64_t> next;
  for (const Entry& entry : entries_) {
    const std::uint64_t due = end_of(entry.begun_ns, entry.every_ns);
    if (entry.sum) next = std::min(next.value_or(due), due);
  }
  return next;
}

}  // namespace vmsight::detect
