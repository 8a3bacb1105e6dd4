#include "cli/watch_plan.h"

#include "render/escape.h"
#include "render/format.h"
#include "render/table.h"

namespace vmsight {
namespace {

using nlohmann::json;

std::string site_text(const json& site) {
  std::string text = site.at("site").get<std::string>();
  if (site.at("form") == "return") text += " (return)";
  if (site.at("counted_only") == true) text += " (counted)";
  return text;
}

std::string joined(const json& list, const std::function<std::string(const json&)>& text) {
  constexpr std::size_t most = 8;
  std::string all;
  for (std::size_t i = 0; i < list.size() && i < most; ++i)
    all += (all.empty() ? "" : " ") + text(list[i]);
  if (list.size() > most) all += fmt::format(" and {} more", list.size() - most);
  return all;
}

/// What the rule does to the guest and reads of it.
std::string what_of(const json& rule) {
  if (rule.at("problem").is_string()) return "not now: " + rule.at("problem").get<std::string>();
  std::string what = joined(rule.at("sites"), site_text);
  if (rule.at("every_ns").is_null()) return what;
  if (!what.empty()) what += "; ";
  const std::string parts =
      joined(rule.at("parts"), [](const json& part) { return part.get<std::string>(); });
  return what + fmt::format("reads {} every {}", parts.empty() ? "its clock" : parts,
                            duration(rule.at("every_ns").get<std::uint64_t>()));
}

}  // namespace

void print_plan(Session& session, const json& plan) {
  session.out.print(
      "{}{}\n", for_terminal(plan.at("vm").get<std::string>()),
      plan.at("pid").is_null() ? "" : fmt::format(" (pid {})", plan.at("pid").dump()));
  Table table({{"RULE"}, {"KIND"}, {"WHAT IT NEEDS"}});
  for (const json& rule : plan.at("rules")) {
    table.row(
        {rule.at("rule").get<std::string>(), rule.at("kind").get<std::string>(), what_of(rule)});
  }
  table.print(session.out, {.headers = session.common.headers, .width = session.width});
  if (const json& engine = plan.at("engine"); engine.is_object()) {
    session.out.print("probes by engine {}: {}; costs the guest: {}\n",
                      engine.at("name").get<std::string>(), engine.at("what").get<std::string>(),
                      engine.at("cost").get<std::string>());
  }
  if (const json& reading = plan.at("reading"); reading.is_object()) {
    const auto ns = reading.at("ns").get<std::uint64_t>();
    const auto every_ns = reading.at("every_ns").get<std::uint64_t>();
    session.out.print(
        "one reading of the state took {}; at most one every {}: {:.1f} % of a CPU of "
        "the host\n",
        duration(ns), duration(every_ns),
        100.0 * static_cast<double>(ns) / static_cast<double>(every_ns));
  }
}

}  // namespace vmsight
