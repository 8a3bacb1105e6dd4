#include "state/jiffies.h"

namespace vmsight {

namespace {
constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::uint64_t max_ticks_per_second = 10'000;  // Linux has 100 to 1,000
}  // namespace

Jiffies Jiffies::resolve(Members& members) {
  Jiffies self;
  self.now_ = members.find_symbol("jiffies_64");
  self.tick_ = members.find_symbol("clocksource_jiffies");
  self.mult_ = members.find("clocksource", "mult");
  self.shift_ = members.find("clocksource", "shift");
  return self;
}

std::optional<std::uint64_t> Jiffies::per_second(Reader& reader) const {
  if (tick_ == GuestVirt() || mult_ == absent || shift_ == absent) return std::nullopt;
  const std::uint32_t shift = reader.u32(tick_ + shift_);
  const std::uint64_t tick_ns = shift < 32 ? reader.u32(tick_ + mult_) >> shift : 0;
  if (tick_ns == 0 || tick_ns > second_ns || second_ns / tick_ns > max_ticks_per_second)
    return std::nullopt;
  return (second_ns + tick_ns / 2) / tick_ns;
}

std::optional<std::uint64_t> Jiffies::seconds_since(Reader& reader, std::uint64_t stamp) const {
  const auto ticks = per_second(reader);
  if (now_ == GuestVirt() || !ticks || *ticks == 0) return std::nullopt;
  const Unrecorded moving(reader);
  const std::uint64_t now = reader.u64(now_);
  return now < stamp ? 0 : (now - stamp) / *ticks;
}

}  // namespace vmsight
