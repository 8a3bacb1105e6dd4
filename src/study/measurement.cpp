#include "study/measurement.h"

namespace vmsight {
namespace {

Json optional_number(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Spread spread_from(const Json& json) {
  return {.count = json.at("n").get<std::size_t>(),
          .median = json.at("median").get<double>(),
          .q1 = json.at("q1").get<double>(),
          .q3 = json.at("q3").get<double>(),
          .mad = json.at("mad").get<double>(),
          .smallest = json.at("min").get<double>(),
          .largest = json.at("max").get<double>()};
}

std::optional<double> optional_from(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(json.get<double>());
}

/// Throws what the JSON library throws.
Measurement parse(const Json& json) {
  Measurement m;
  m.technique = json.at("technique").get<std::string>();
  m.wanted_rate = json.at("wanted_rate").is_null() ? 0 : json.at("wanted_rate").get<double>();
  m.cpu =
      json.at("held_to_cpu_percent").is_null() ? 0 : json.at("held_to_cpu_percent").get<double>();
  if (json.contains("error")) {
    m.error = json.at("error").get<std::string>();
    m.hint = json.at("hint").get<std::string>();
    return m;
  }
  m.rate = json.at("rate").get<double>();
  m.round_rates = spread_from(json.at("round_rates"));
  m.reached = json.at("reached").get<bool>();
  m.views = json.at("views").get<std::uint64_t>();
  m.missed = json.at("missed").get<std::uint64_t>();
  m.problems = json.at("problems").get<std::uint64_t>();
  m.processes = json.at("processes").get<std::size_t>();
  m.view_ns = spread_from(json.at("view_ns"));
  m.pause_ns = spread_from(json.at("pause_ns"));
  m.bytes = spread_from(json.at("bytes"));
  m.pages = spread_from(json.at("pages"));
  m.own_cpu_ms = json.at("own_cpu_ms_per_view").get<double>();
  m.qemu_cpu_ms = optional_from(json.at("qemu_cpu_ms_per_view"));
  m.guest_cpu_ms = optional_from(json.at("guest_cpu_ms_per_view"));
  m.cpu_percent = json.at("cpu_percent").get<double>();
  m.own_anonymous_kib = json.at("own_anonymous_peak_kib").get<std::uint64_t>();
  m.qemu_growth_kib = json.at("qemu_growth_kib").get<std::uint64_t>();
  return m;
}

}  // namespace

Json to_json(const Spread& spread) {
  return {{"n", spread.count}, {"median", spread.median}, {"q1", spread.q1},      {"q3", spread.q3},
          {"mad", spread.mad}, {"min", spread.smallest},  {"max", spread.largest}};
}

Json to_json(const Measurement& m) {
  Json json = {{"technique", m.technique},
               {"wanted_rate", m.wanted_rate > 0 ? Json(m.wanted_rate) : Json(nullptr)},
               {"held_to_cpu_percent", m.cpu > 0 ? Json(m.cpu) : Json(nullptr)}};
  if (!m.error.empty()) {
    json["error"] = m.error;
    json["hint"] = m.hint;
    return json;
  }
  json["rate"] = m.rate;
  json["round_rates"] = to_json(m.round_rates);
  json["reached"] = m.reached;
  json["views"] = m.views;
  json["missed"] = m.missed;
  json["problems"] = m.problems;
  json["processes"] = m.processes;
  json["view_ns"] = to_json(m.view_ns);
  json["pause_ns"] = to_json(m.pause_ns);
  json["bytes"] = to_json(m.bytes);
  json["pages"] = to_json(m.pages);
  json["own_cpu_ms_per_view"] = m.own_cpu_ms;
  json["qemu_cpu_ms_per_view"] = optional_number(m.qemu_cpu_ms);
  json["guest_cpu_ms_per_view"] = optional_number(m.guest_cpu_ms);
  json["cpu_percent"] = m.cpu_percent;
  json["cpu_percent_per_hz"] = m.cpu_percent_per_hz();
  json["own_anonymous_peak_kib"] = m.own_anonymous_kib;
  json["qemu_growth_kib"] = m.qemu_growth_kib;
  return json;
}

Result<Measurement> measurement_from(const Json& json) {
  try {
    return parse(json);
  } catch (const Json::exception& error) {
    return Error{.code = ErrorCode::bad_data,
                 .message = std::string("read a measurement: ") + error.what()};
  }
}

}  // namespace vmsight
