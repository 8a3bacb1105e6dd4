#include "probe/kvm/in_order.h"

#include <algorithm>

namespace vmsight::kvm {

/// Nearly always the last place.
void InOrder::add(Hit&& hit) {
  auto at = waiting_.end();
  while (at != waiting_.begin() && std::prev(at)->time_ns > hit.time_ns) --at;
  waiting_.insert(at, std::move(hit));
}

std::size_t InOrder::tell(std::uint64_t now_ns, const ProbeEngine::Sink& sink) {
  std::size_t told = 0;
  while (!waiting_.empty() &&
         (waiting_.size() > max_waiting || oldest_ns() + window_ns <= now_ns)) {
    tell_first(sink);
    ++told;
  }
  return told;
}

std::size_t InOrder::tell_all(const ProbeEngine::Sink& sink) {
  const std::size_t told = waiting_.size();
  while (!waiting_.empty()) tell_first(sink);
  return told;
}

void InOrder::tell_first(const ProbeEngine::Sink& sink) {
  Hit hit = std::move(waiting_.front());
  waiting_.pop_front();
  if (hit.time_ns < last_ns_) ++late_;
  last_ns_ = std::max(last_ns_, hit.time_ns);
  sink(hit);
}

}  // namespace vmsight::kvm
