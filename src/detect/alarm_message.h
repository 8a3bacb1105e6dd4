// Alarms as bytes, from one process of ours to another.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "detect/alarm.h"
#include "vmsight/result.h"

namespace vmsight::detect {

/// CBOR: texts keep the guest's bytes. What comes back has the same meaning, though a number that is not
/// negative comes back without a sign.
nlohmann::json pack_alarm(const Alarm& alarm);
/// bad_data if it is none.
Result<Alarm> unpack_alarm(const nlohmann::json& packed);

/// "LENGTH BYTES": what a stream carries. `most` bounds what a peer can make us hold.
std::vector<std::uint8_t> frame_of(const nlohmann::json& message);
/// Takes the first message out of what came. nullopt: it is not whole yet. bad_data: it is none, or is too
/// long.
inline constexpr std::size_t longest_message = 16u << 20;  // bytes
Result<std::optional<nlohmann::json>> take_message(std::vector<std::uint8_t>& came);

}  // namespace vmsight::detect
