// Which network namespace the user means.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "vmsight/result.h"
#include "vmsight/state.h"

namespace vmsight {

/// What these functions look at: names are mounts.
inline constexpr unsigned namespace_parts = part_mounts;

/// By its inode number, or by the name that `ip netns add` gave it in the guest.
Result<std::uint64_t> find_network_namespace(const State& state, const std::string& text);

/// The names that `ip netns` has for them, by their inode numbers.
std::multimap<std::uint64_t, std::string> network_namespace_names(const State& state);

}  // namespace vmsight
