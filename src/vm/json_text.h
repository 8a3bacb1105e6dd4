// Text in the answers of QEMU and of agents, which may hold anything.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace vmsight {

/// The member, if this is an object that has it as a string; else `otherwise`.
inline std::string text_of(const nlohmann::json& object, const char* key,
                           std::string otherwise = "") {
  if (!object.is_object()) return otherwise;
  const auto member = object.find(key);
  if (member == object.end() || !member->is_string()) return otherwise;
  return member->get<std::string>();
}

}  // namespace vmsight
