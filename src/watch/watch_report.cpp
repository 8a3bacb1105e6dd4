// What rules that run on a guest do, and what they would do to it and cost.
#include <algorithm>

#include "base/clock.h"
#include "kernel/guest_text.h"
#include "state/records.h"
#include "watch/guest_watch.h"

namespace vmsight::detect {

nlohmann::json GuestWatch::status_of(const Running& running,
                                     const std::vector<ProbeInfo>& probes) const {
  nlohmann::json sites = nlohmann::json::array();
  ProbeCounts sum;
  for (const ProbeInfo& probe : probes) {
    if (!running.has(probe.id)) continue;
    if (probe.ended.empty() && !probe.counts.stormed)
      sites.push_back(escape_bytes(to_string(probe.site)));
    sum.filtered += probe.counts.filtered;
    sum.lost += probe.counts.lost;
  }
  const bool looks = running.detector && running.detector->every_ns() != 0;
  return {{"rule", escape_bytes(running.rule.name)},
          {"kind", kind_name(running.rule.kind)},
          {"sites", std::move(sites)},
          {"state", running.broken ? "impossible" : (running.pending ? "waiting" : "runs")},
          {"reason", running.reason},
          {"every_ns", looks ? nlohmann::json(running.detector->every_ns()) : nlohmann::json()},
          {"looks", running.looks},
          {"hits", running.hits},
          {"judged", running.told},
          {"filtered", sum.filtered},
          {"lost", sum.lost},
          {"alarms", running.alarms}};
}

nlohmann::json GuestWatch::status() {
  counted_ns_ = 0;
  count_hits();
  std::vector<ProbeInfo> probes;
  if (prober_) probes = prober_->list().value_or(std::vector<ProbeInfo>());
  nlohmann::json rules = nlohmann::json::array();
  for (const auto& running : running_) rules.push_back(status_of(*running, probes));
  const nlohmann::json none;
  return {{"vm", escape_bytes(name_)},
          {"pid", guest_.vm ? nlohmann::json(guest_.vm->info().pid) : none},
          {"engine", prober_ ? nlohmann::json(prober_->abilities().name) : none},
          {"paused", suspended_},
          {"readings", readings_},
          {"reading_ns", reading_ns_},
          {"rules", std::move(rules)}};
}

nlohmann::json GuestWatch::plan_of(Running& running) {
  nlohmann::json planned = {{"rule", escape_bytes(running.rule.name)},
                            {"kind", kind_name(running.rule.kind)},
                            {"sites", nlohmann::json::array()},
                            {"parts", nlohmann::json::array()},
                            {"every_ns", nullptr},
                            {"problem", nullptr}};
  const auto fails = [&](const Error& error) {
    const bool may_come = error.code == ErrorCode::not_found;
    planned["problem"] = error.message + (may_come ? "; it would be looked for again" : "");
    return planned;
  };
  if (auto made = make(running); !made) return fails(made.error());
  for (const ProbeRequest& request : running.detector->probes()) {
    if (auto opened = open_prober(); !opened) return fails(opened.error());
    const auto sites = prober_->find(request);
    if (!sites) return fails(sites.error());
    for (const ProbeSite& site : *sites) {
      planned["sites"].push_back({{"site", escape_bytes(to_string(site))},
                                  {"form", site.at_return ? "return" : "entry"},
                                  {"user", site.user},
                                  {"module", escape_bytes(site.module)},
                                  {"counted_only", request.counts_only}});
    }
  }
  if (running.detector->every_ns() == 0) return planned;
  planned["every_ns"] = running.detector->every_ns();
  for (const auto& [name, part] : document_parts()) {
    if ((running.detector->parts() & part) != 0) planned["parts"].push_back(name);
  }
  if ((running.detector->parts() & part_threads) != 0) planned["parts"].push_back("threads");
  return planned;
}

Result<nlohmann::json> GuestWatch::plan() {
  VMSIGHT_TRY_VOID(attach_guest());
  VMSIGHT_TRY_VOID(resolve_kernel());
  nlohmann::json rules = nlohmann::json::array();
  StateOptions options;
  options.parts = part_os;
  std::uint64_t every_ns = 0;
  for (const auto& running : running_) {
    rules.push_back(plan_of(*running));
    if (!running->detector || running->detector->every_ns() == 0) continue;
    options.parts |= running->detector->parts();
    every_ns = std::min(every_ns - 1, running->detector->every_ns() - 1) + 1;  // 0: none yet
  }
  nlohmann::json reading, engine;
  if (every_ns != 0) {
    VMSIGHT_TRY_VOID(state_reader_->read(options, state_));  // the first one finds its pages
    const Stopwatch watch;
    VMSIGHT_TRY_VOID(state_reader_->read(options, state_));
    reading = {{"ns", watch.elapsed_ns()}, {"every_ns", every_ns}};
  }
  for (const EngineStatus& status :
       prober_ ? engine_status(*guest_.vm) : std::vector<EngineStatus>()) {
    if (status.abilities.name != prober_->abilities().name) continue;
    engine = {{"name", status.abilities.name}, {"what", status.what}, {"cost", status.cost}};
  }
  return nlohmann::json{{"vm", escape_bytes(name_)},
                        {"pid", guest_.vm ? nlohmann::json(guest_.vm->info().pid) : nullptr},
                        {"engine", std::move(engine)},
                        {"reading", std::move(reading)},
                        {"rules", std::move(rules)}};
}

}  // namespace vmsight::detect
