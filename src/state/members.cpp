#include "state/members.h"

#include <fmt/format.h>

namespace vmsight {

void Members::miss(std::string what) {
  if (missing_.empty()) missing_ = std::move(what);
}

Member Members::member(std::string_view type, std::string_view path) {
  const std::optional<Member> found = kernel_.member(type, path);
  if (!found) miss(fmt::format("member {}.{}", type, path));
  return found.value_or(Member{});
}

Offset Members::find(std::string_view type, std::initializer_list<std::string_view> paths) {
  for (std::string_view path : paths) {
    if (const auto found = kernel_.member(type, path)) return found->offset;
  }
  return absent;
}

Offset Members::offset(std::string_view type, std::initializer_list<std::string_view> paths) {
  const Offset found = find(type, paths);
  if (found == absent) miss(fmt::format("member {}.{}", type, *paths.begin()));
  return found;
}

std::uint32_t Members::size(std::string_view type) {
  const std::optional<std::uint64_t> found = kernel_.type_size(type);
  if (!found) miss(fmt::format("type {}", type));
  return static_cast<std::uint32_t>(found.value_or(0));
}

GuestVirt Members::symbol(std::string_view name) {
  const std::optional<GuestVirt> found = kernel_.symbol(name);
  if (!found) miss(fmt::format("symbol {}", name));
  return found.value_or(GuestVirt());
}

std::optional<std::uint32_t> Members::optional_offset(std::string_view type,
                                                      std::string_view path) {
  const std::optional<Member> found = kernel_.member(type, path);
  if (!found) return std::nullopt;
  return found->offset;
}

Result<void> Members::check() const {
  if (missing_.empty()) return {};
  return Error{ErrorCode::unsupported, "read kernel state: this kernel has no " + missing_};
}

}  // namespace vmsight
