#include "detect/remembered.h"

#include <algorithm>
#include <functional>

namespace vmsight::detect {
namespace {

constexpr std::size_t longest_key = 256;  // of a longer one, the beginning and a hash

std::string bounded(std::uint32_t which, std::string_view key) {
  std::string made(reinterpret_cast<const char*>(&which), sizeof which);
  made += key.substr(0, longest_key);
  if (key.size() > longest_key) {
    const std::size_t hash = std::hash<std::string_view>()(key);
    made.append(reinterpret_cast<const char*>(&hash), sizeof hash);
  }
  return made;
}

}  // namespace

std::size_t Memory::count(const Window& window, std::string_view key, std::uint64_t now_ns) {
  Entry& entry = entry_of(bounded(window.which, key));
  entry.length_ns = window.length_ns;
  const std::size_t before = entry.times.size();
  const std::uint64_t since = now_ns < window.length_ns ? 0 : now_ns - window.length_ns;
  const auto first = std::find_if(entry.times.begin(), entry.times.end(),
                                  [&](std::uint64_t time) { return time >= since; });
  entry.times.erase(entry.times.begin(), first);
  const std::size_t most = std::clamp<std::size_t>(window.most, 1, bounds_.times);
  if (entry.times.size() >= most) entry.times.erase(entry.times.begin());
  entry.times.push_back(now_ns);
  times_ += entry.times.size() - before;
  const std::size_t counted = entry.times.size();
  make_room(now_ns);
  return counted;
}

Memory::Entry& Memory::entry_of(std::string key) {
  const auto known = by_key_.find(key);
  if (known != by_key_.end()) {
    entries_.splice(entries_.begin(), entries_, known->second);
  } else {
    entries_.push_front({.key = std::move(key)});
    by_key_.emplace(entries_.front().key, entries_.begin());
  }
  return entries_.front();
}

void Memory::make_room(std::uint64_t now_ns) {
  while (entries_.size() > 1 && (entries_.size() > bounds_.keys || times_ > bounds_.times)) {
    const Entry& last = entries_.back();
    if (now_ns - last.times.back() < last.length_ns) ++forgotten_;
    times_ -= last.times.size();
    by_key_.erase(last.key);
    entries_.pop_back();
  }
}

}  // namespace vmsight::detect
