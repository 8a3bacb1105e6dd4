// Alarms as lines: text, JSON in Falco's names, OCSF.
#include <fmt/format.h>
#include <unistd.h>
#include <array>
#include <cctype>
#include <ctime>

#include "base/units.h"
#include "base/utf8.h"
#include "detect/sink.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t ns_per_ms = 1'000'000;

struct ToJson {
  Json operator()(std::monostate) const { return nullptr; }
  Json operator()(const std::string& text) const { return for_json(text); }
  Json operator()(const std::vector<std::string>& list) const {
    Json all = Json::array();
    for (const std::string& text : list) all.push_back(for_json(text));
    return all;
  }
  template <typename T>
  Json operator()(const T& value) const {
    return value;
  }
};

/// The same with strings and keys that are UTF-8: what a detector put there may be the guest's.
Json valid(const Json& json, unsigned depth = 0) {
  constexpr unsigned deepest = 64;
  if (depth > deepest) return "(nested too deep)";
  if (json.is_string()) return for_json(json.get_ref<const std::string&>());
  if (!json.is_structured()) return json;
  Json made = json.is_array() ? Json::array() : Json::object();
  for (const auto& [key, value] : json.items()) {
    Json one = valid(value, depth + 1);
    if (json.is_array()) {
      made.push_back(std::move(one));
    } else {
      made[for_json(key)] = std::move(one);
    }
  }
  return made;
}

Json fields_json(const Alarm& alarm) {
  Json fields = Json::object();
  for (const auto& [name, value] : alarm.fields)
    fields[for_json(name)] = std::visit(ToJson(), value);
  return fields;
}

Json tags_json(const Alarm& alarm) {
  Json tags = Json::array();
  for (const std::string& tag : alarm.tags) tags.push_back(for_json(tag));
  return tags;
}

struct Severity {
  int id;
  const char* name;
};
/// OCSF has six.
Severity severity_of(Priority priority) {
  switch (priority) {
    case Priority::emergency:
      return {6, "Fatal"};
    case Priority::alert:
    case Priority::critical:
      return {5, "Critical"};
    case Priority::error:
      return {4, "High"};
    case Priority::warning:
      return {3, "Medium"};
    case Priority::notice:
      return {2, "Low"};
    default:
      return {1, "Informational"};
  }
}

/// Another for each alarm, the same for each time that it is told.
std::string finding_uid(const Alarm& alarm) {
  std::string all = alarm.vm + '\0' + alarm.rule + '\0' + alarm.output;
  return fmt::format("{:x}-{:016x}", alarm.time_ns, std::hash<std::string>()(all));
}

Json finding_info(const Alarm& alarm) {
  const std::string rule = for_json(alarm.rule);
  return {{"uid", finding_uid(alarm)},
          {"title", rule},
          {"desc", for_json(alarm.output)},
          {"types", tags_json(alarm)},
          {"analytic", {{"name", rule}, {"type", "Rule"}, {"type_id", 1}}},
          {"created_time", alarm.time_ns / ns_per_ms},
          {"first_seen_time", alarm.first_ns / ns_per_ms},
          {"last_seen_time", alarm.last_ns / ns_per_ms}};
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace

std::string rfc3339(std::uint64_t time_ns) {
  const auto seconds = static_cast<std::time_t>(time_ns / ns_per_s);
  std::tm tm{};
  ::gmtime_r(&seconds, &tm);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", tm.tm_year + 1900, tm.tm_mon + 1,
                     tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, time_ns % ns_per_s);
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

std::string alarm_text(const Alarm& alarm) {
  std::string about = fmt::format("vm={}", escape_bytes(alarm.vm));
  if (alarm.count > 1) {
    about += fmt::format(", {} times from {} to {}", alarm.count, rfc3339(alarm.first_ns),
                         rfc3339(alarm.last_ns));
  }
  return fmt::format("{} {}: {} ({})", to_string(alarm.priority), one_line(alarm.rule),
                     one_line(alarm.output), about);
}

Json alarm_json(const Alarm& alarm, const std::string& hostname) {
  return {{"time", rfc3339(alarm.time_ns)},
          {"rule", for_json(alarm.rule)},
          {"priority", to_string(alarm.priority)},
          {"output", for_json(alarm.output)},
          {"output_fields", fields_json(alarm)},
          {"tags", tags_json(alarm)},
          {"source", "vmsight"},
          {"hostname", for_json(hostname)},
          {"vm", for_json(alarm.vm)},
          {"evidence", valid(alarm.evidence)},
          {"count", alarm.count},
          {"first", rfc3339(alarm.first_ns)},
          {"last", rfc3339(alarm.last_ns)}};
}

/// https://schema.ocsf.io/1.1.0/classes/detection_finding
Json alarm_ocsf(const Alarm& alarm, const std::string& hostname) {
  const Severity severity = severity_of(alarm.priority);
  Json made = {
      {"metadata",
       {{"version", "1.1.0"}, {"product", {{"name", "vmsight"}, {"vendor_name", "vmsight"}}}}},
      {"category_uid", 2},
      {"category_name", "Findings"},
      {"class_uid", 2004},
      {"class_name", "Detection Finding"},
      {"activity_id", 1},
      {"activity_name", "Create"},
      {"type_uid", 200401},
      {"type_name", "Detection Finding: Create"},
      {"status_id", 1},
      {"status", "New"},
      {"severity_id", severity.id},
      {"severity", severity.name},
      {"time", alarm.time_ns / ns_per_ms},
      {"start_time", alarm.first_ns / ns_per_ms},
      {"end_time", alarm.last_ns / ns_per_ms},
      {"count", alarm.count},
      {"message", for_json(alarm.output)},
      {"finding_info", finding_info(alarm)},
      {"resources",
       {{{"name", for_json(alarm.vm)}, {"type", "Virtual Machine"}},
        {{"name", for_json(hostname)}, {"type", "Host"}}}},
      {"unmapped",
       {{"priority", to_string(alarm.priority)}, {"output_fields", fields_json(alarm)}}}};
  if (!alarm.evidence.is_null()) made["evidences"] = {{{"data", valid(alarm.evidence)}}};
  return made;
}

std::string format_alarm(const Alarm& alarm, AlarmFormat format, const std::string& hostname) {
  switch (format) {
    case AlarmFormat::json:
      return dump(alarm_json(alarm, hostname));
    case AlarmFormat::ocsf:
      return dump(alarm_ocsf(alarm, hostname));
    default:
      return rfc3339(alarm.time_ns) + ": " + alarm_text(alarm);
  }
}

}  // namespace vmsight::detect
