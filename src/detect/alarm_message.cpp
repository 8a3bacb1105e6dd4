#include "detect/alarm_message.h"

#include <cstring>

namespace vmsight::detect {
namespace {

using Json = nlohmann::json;

constexpr std::size_t length_size = sizeof(std::uint32_t);

Error no_alarm() {
  return {.code = ErrorCode::bad_data, .message = "take an alarm: what came is none"};
}

struct Pack {
  Json operator()(std::monostate) const { return nullptr; }
  template <typename T>
  Json operator()(const T& value) const {
    return value;
  }
};

Value unpack_value(const Json& json) {
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_unsigned()) return json.get<std::uint64_t>();
  if (json.is_number_integer()) return json.get<std::int64_t>();
  if (json.is_string()) return json.get<std::string>();
  if (json.is_array()) return json.get<std::vector<std::string>>();
  return {};
}

Json pack_fields(const Alarm& alarm) {
  Json fields = Json::array();
  for (const auto& [name, value] : alarm.fields)
    fields.push_back({name, std::visit(Pack(), value)});
  return fields;
}

Json pack_commands(const Alarm& alarm) {
  Json commands = Json::array();
  for (const AlarmCommand& command : alarm.commands)
    commands.push_back({command.arguments, command.limit.count()});
  return commands;
}

Alarm unpack(const Json& packed) {
  Alarm alarm{.rule = packed.at("rule"),
              .priority = packed.at("priority").get<Priority>(),
              .tags = packed.at("tags"),
              .vm = packed.at("vm"),
              .time_ns = packed.at("time"),
              .output = packed.at("output"),
              .evidence = packed.at("evidence"),
              .count = packed.at("count"),
              .first_ns = packed.at("first"),
              .last_ns = packed.at("last"),
              .pid = packed.at("pid")};
  for (const Json& field : packed.at("fields"))
    alarm.fields.emplace_back(field.at(0), unpack_value(field.at(1)));
  for (const Json& command : packed.at("commands")) {
    alarm.commands.push_back(
        {.arguments = command.at(0),
         .limit = std::chrono::milliseconds(command.at(1).get<std::int64_t>())});
  }
  return alarm;
}

}  // namespace

Json pack_alarm(const Alarm& alarm) {
  return {{"rule", alarm.rule},
          {"priority", alarm.priority},
          {"tags", alarm.tags},
          {"vm", alarm.vm},
          {"time", alarm.time_ns},
          {"output", alarm.output},
          {"evidence", alarm.evidence},
          {"fields", pack_fields(alarm)},
          {"count", alarm.count},
          {"first", alarm.first_ns},
          {"last", alarm.last_ns},
          {"pid", alarm.pid},
          {"commands", pack_commands(alarm)}};
}

Result<Alarm> unpack_alarm(const Json& packed) {
  try {
    Alarm alarm = unpack(packed);
    if (alarm.priority > Priority::debug) return no_alarm();
    return alarm;
  } catch (const Json::exception&) {
    return no_alarm();
  }
}

std::vector<std::uint8_t> frame_of(const Json& message) {
  std::vector<std::uint8_t> frame(length_size);
  Json::to_cbor(message, frame);
  const auto length = static_cast<std::uint32_t>(frame.size() - length_size);
  std::memcpy(frame.data(), &length, length_size);
  return frame;
}

Result<std::optional<Json>> take_message(std::vector<std::uint8_t>& came) {
  std::uint32_t length = 0;
  if (came.size() < length_size) return std::optional<Json>();
  std::memcpy(&length, came.data(), length_size);
  if (length > longest_message) return no_alarm();
  if (came.size() - length_size < length) return std::optional<Json>();
  const auto begin = came.begin() + length_size;
  Json message = Json::from_cbor(begin, begin + length, true, false);
  came.erase(came.begin(), begin + length);
  if (message.is_discarded()) return no_alarm();
  return std::optional<Json>(std::move(message));
}

}  // namespace vmsight::detect
