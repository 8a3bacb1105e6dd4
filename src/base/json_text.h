// The answers of QEMU and of agents, which may hold anything.
#pragma once

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "vmsight/result.h"

namespace vmsight {

/// The member, if this is an object that has it as a string; else `otherwise`.
inline std::string text_of(const nlohmann::json& object, const char* key,
                           std::string otherwise = "") {
  if (!object.is_object()) return otherwise;
  const auto member = object.find(key);
  if (member == object.end() || !member->is_string()) return otherwise;
  return member->get<std::string>();
}

/// The value that `answer`, an object, returns to a command; unsupported, with its words, if it is a
/// refusal.
inline Result<nlohmann::json> returned_value(std::string_view whom, std::string_view command,
                                             nlohmann::json answer) {
  if (answer.contains("return")) return std::move(answer["return"]);
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("{} {}: {}", whom, command,
                                      text_of(answer.value("error", nlohmann::json()), "desc",
                                              "refused without a reason"))};
}

}  // namespace vmsight
