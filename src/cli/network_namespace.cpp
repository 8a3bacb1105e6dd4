#include "cli/network_namespace.h"

#include <charconv>
#include <string_view>

#include "base/text.h"
#include "cli/verb.h"

namespace vmsight {

namespace {

/// The number in "net:[4026532008]", which is the root of such a mount.
std::optional<std::uint64_t> namespace_in(std::string_view root) {
  constexpr std::string_view before = "net:[";
  const std::size_t at = root.find(before);
  if (at == root.npos) return std::nullopt;
  std::uint64_t number = 0;
  const char* start = root.data() + at + before.size();
  const auto parsed = std::from_chars(start, root.data() + root.size(), number);
  return parsed.ec == std::errc() ? std::optional(number) : std::nullopt;
}

}  // namespace

std::multimap<std::uint64_t, std::string> network_namespace_names(const State& state) {
  std::multimap<std::uint64_t, std::string> names;
  for (const Mount& mount : state.mounts) {
    for (const std::string_view directory : {"/run/netns/", "/var/run/netns/"}) {
      if (mount.fstype != "nsfs" || !mount.target.starts_with(directory)) continue;
      const auto number = namespace_in(mount.root);
      if (number) names.emplace(*number, mount.target.substr(directory.size()));
    }
  }
  return names;
}

Result<std::uint64_t> find_network_namespace(const State& state, const std::string& text) {
  if (const auto number = parse_whole<std::uint64_t>(text)) return *number;
  for (const auto& [inode, name] : network_namespace_names(state)) {
    if (name == text) return inode;
  }
  return Error{
      .code = ErrorCode::not_found,
      .message = "no network namespace '" + text + "' in the guest",
      .hint = "a number as `vmsight ip VM` shows it, or a name of `ip netns` in the guest"};
}

}  // namespace vmsight
