#include "study/document.h"

#include <sys/utsname.h>
#include <fstream>
#include <thread>

#include "render/escape.h"

namespace vmsight {
namespace {

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "";
}

Json host_json() {
  utsname name{};
  ::uname(&name);
  return {{"kernel", name.release},
          {"cpu", for_json(cpu_model())},
          {"cores", std::thread::hardware_concurrency()}};
}

Json row_json(const TechniqueRow& row) {
  Json measurements = Json::array();
  for (const Measurement& measured : row.measurements) measurements.push_back(to_json(measured));
  return {{"name", row.name},           {"class", class_of(row.name)},
          {"what", row.what},           {"cost", row.cost},
          {"usable", row.usable},       {"reason", for_json(row.reason)},
          {"hint", for_json(row.hint)}, {"measurements", std::move(measurements)}};
}

std::string milliseconds(double ns) { return fmt::format("{:.3g}", ns / 1e6); }

void add_row(Table& table, const Measurement& m) {
  std::string rate = m.wanted_rate > 0 ? fmt::format("{:g}", m.wanted_rate) : "max";
  if (m.cpu > 0) rate += fmt::format(", {:g}% CPU", m.cpu);
  if (!m.error.empty()) {
    table.row({m.technique, rate, "-", "-", "-", "-", "-", "-", "-", m.error});
    return;
  }
  table.row({m.technique, rate, fmt::format("{:.4g}", m.rate), milliseconds(m.view_ns.median),
             milliseconds(m.pause_ns.median), fmt::format("{:.0f}", m.pages.median),
             fmt::format("{:.3g}", m.own_cpu_ms + m.qemu_cpu_ms.value_or(0)),
             fmt::format("{:.3g}", m.cpu_percent_per_hz()),
             fmt::format("{:.0f}", static_cast<double>(m.own_anonymous_kib) / 1024),
             m.reached ? "" : "rate not reached"});
}

Json vm_json(const VmInfo& info) {
  return {{"name", for_json(info.name)},
          {"pid", info.pid},
          {"accelerator", to_string(info.accelerator)},
          {"vcpus", info.vcpus},
          {"memory_bytes", info.memory_bytes},
          {"machine", for_json(info.machine)}};
}

Json row_json(const ProbesStudy& study, const ProbeRow& row) {
  const auto times = study.times_raw(row);
  const bool measured = row.extra_ns.count > 0;
  return {{"engine", row.engine},
          {"kind", name_of(row.kind)},
          {"what", what_of(row.kind)},
          {"error", row.error.empty() ? Json(nullptr) : Json(for_json(row.error))},
          {"hint", row.hint.empty() ? Json(nullptr) : Json(for_json(row.hint))},
          {"calls", row.calls},
          {"hits", row.hits},
          {"told", row.told},
          {"lost", row.lost},
          {"clock", row.told_clock ? "command" : "host"},
          {"extra_ns", measured ? to_json(row.extra_ns) : Json(nullptr)},
          {"times_raw_exit", times ? Json(*times) : Json(nullptr)}};
}

std::string microseconds(double ns) { return fmt::format("{:.3g}", ns / 1e3); }

void add_row(Table& table, const ProbesStudy& study, const ProbeRow& row) {
  const PublishedProbe properties = properties_of_engine(row.engine);
  const std::string name = fmt::format("vmsight {}: {}", row.engine, name_of(row.kind));
  if (!row.error.empty() || row.extra_ns.count == 0) {
    table.row({name, "-", "-", "-", "-", "", "", "", row.error});
    return;
  }
  const auto times = study.times_raw(row);
  table.row({name, microseconds(row.extra_ns.median), microseconds(row.extra_ns.mad),
             times ? fmt::format("{:.2f}", *times) : "-",
             counts_hits(row.kind) ? std::to_string(row.hits) : "-", properties.where,
             properties.when, properties.changes,
             row.lost > 0 ? fmt::format("{} lost", row.lost) : ""});
}

}  // namespace

Json techniques_document(const VmInfo& info, const TechniquesOptions& options,
                         const std::vector<TechniqueRow>& rows) {
  Json techniques = Json::array();
  for (const TechniqueRow& row : rows) techniques.push_back(row_json(row));
  return {{"schema", "vmsight.study.techniques/1"},
          {"host", host_json()},
          {"vm", vm_json(info)},
          {"options",
           {{"seconds", options.measure.seconds},
            {"rounds", options.measure.rounds},
            {"rates", options.rates},
            {"cpu", options.cpu}}},
          {"techniques", std::move(techniques)}};
}

void print_techniques(Output& out, const std::vector<TechniqueRow>& rows,
                      const TableOptions& options) {
  Table table({{"TECHNIQUE"},
               {"WANTED", Align::right},
               {"VIEWS/S", Align::right},
               {"VIEW MS", Align::right},
               {"PAUSE MS", Align::right},
               {"PAGES", Align::right},
               {"CPU MS", Align::right},
               {"CPU%/HZ", Align::right},
               {"MIB", Align::right},
               {"NOTE"}});
  for (const TechniqueRow& row : rows) {
    if (!row.usable) table.row({row.name, "", "-", "-", "-", "-", "-", "-", "-", row.reason});
    for (const Measurement& measured : row.measurements) add_row(table, measured);
  }
  table.print(out, options);
}

Json probes_document(const VmInfo& info, const ProbesOptions& options, const ProbesStudy& study) {
  Json rows = Json::array(), published = Json::array();
  for (const ProbeRow& row : study.rows) rows.push_back(row_json(study, row));
  for (const PublishedProbe& one : published_probes()) {
    published.push_back({{"name", one.name},
                         {"us", one.microseconds},
                         {"where", one.where},
                         {"when", one.when},
                         {"changes", one.changes}});
  }
  const bool raw = study.raw_ns.count > 0;
  return {{"schema", "vmsight.study.probes/1"},
          {"host", host_json()},
          {"vm", vm_json(info)},
          {"options",
           {{"site", for_json(options.site)},
            {"calls", options.calls},
            {"slow_calls", options.slow_calls},
            {"rounds", options.rounds}}},
          {"call_ns", study.call_ns.count > 0 ? to_json(study.call_ns) : Json(nullptr)},
          {"raw_exit_ns", raw ? to_json(study.raw_ns) : Json(nullptr)},
          {"raw_exit_problem", raw ? Json(nullptr) : Json(for_json(study.raw_problem))},
          {"probes", std::move(rows)},
          {"published", std::move(published)}};
}

void print_probes(Output& out, const ProbesOptions& options, const ProbesStudy& study,
                  const TableOptions& how) {
  Table table({{"PROBE"},
               {"US/HIT", Align::right},
               {"+-", Align::right},
               {"X RAW", Align::right},
               {"HITS", Align::right},
               {"WHERE"},
               {"WHEN"},
               {"CHANGES"},
               {"NOTE"}});
  for (const PublishedProbe& one : published_probes()) {
    table.row({one.name, fmt::format("{:.3g}", one.microseconds), "", "", "", one.where, one.when,
               one.changes, "published, another machine"});
  }
  for (const ProbeRow& row : study.rows) add_row(table, study, row);
  table.print(out, how);
  out.write("\n");
  if (study.call_ns.count > 0) {
    out.print("{}: a call without a probe takes {} us\n", for_terminal(options.site),
              microseconds(study.call_ns.median));
  }
  if (study.raw_ns.count > 0) {
    out.print("raw exit of this host's KVM to user space and back: {} us +- {}\n",
              microseconds(study.raw_ns.median), microseconds(study.raw_ns.mad));
  } else {
    out.print("raw exit: not measured: {}\n", for_terminal(study.raw_problem));
  }
}

namespace {

Json occurrences_json(const Occurrences& occurrences) {
  Json json = Json::object();
  for (const auto& [name, seen] : occurrences)
    json[name] = {{"views", seen.views}, {"records", seen.records}};
  return json;
}

Json way_json(const WayOutcome& way) {
  return {{"way", way.way},
          {"technique", way.technique},
          {"error", way.error.empty() ? Json(nullptr) : Json(for_json(way.error))},
          {"hint", way.hint.empty() ? Json(nullptr) : Json(for_json(way.hint))},
          {"views", way.views},
          {"failed", way.failed},
          {"processes", way.processes},
          {"view_ns", to_json(way.view_ns.spread())},
          {"pause_ns", to_json(way.pause_ns.spread())},
          {"extrinsic", occurrences_json(way.extrinsic)},
          {"intrinsic", occurrences_json(way.intrinsic)},
          {"intrinsic_lasted_ns", to_json(way.lasted_ns.spread())},
          {"contradictions", occurrences_json(way.contradictions)}};
}

/// "12 died, 3 changed": records of all views; "-" if there is nothing.
std::string summed_up(const Occurrences& occurrences) {
  std::string text;
  for (const auto& [name, seen] : occurrences) {
    if (seen.records == 0) continue;
    if (!text.empty()) text += ", ";
    text += fmt::format("{} {}", seen.records, name);
  }
  return text.empty() ? "-" : text;
}

}  // namespace

Json consistency_document(const VmInfo& info, const ConsistencyStudyOptions& options,
                          const std::vector<WayOutcome>& ways) {
  Json list = Json::array();
  for (const WayOutcome& way : ways) list.push_back(way_json(way));
  return {{"schema", "vmsight.study.consistency/1"},
          {"host", host_json()},
          {"vm", vm_json(info)},
          {"options", {{"views", options.views}}},
          {"ways", std::move(list)}};
}

void print_consistency(Output& out, const std::vector<WayOutcome>& ways, const TableOptions& how) {
  Table table({{"WAY"},
               {"TECHNIQUE"},
               {"VIEWS", Align::right},
               {"FAILED", Align::right},
               {"MS", Align::right},
               {"PAUSE MS", Align::right},
               {"NOTICED"},
               {"OF THE GUEST"},
               {"CONTRADICTIONS"}});
  for (const WayOutcome& way : ways) {
    if (!way.error.empty() && way.views == 0) {
      table.row({way.way, way.technique, "-", "-", "-", "-", way.error});
      continue;
    }
    table.row({way.way, way.technique, std::to_string(way.views), std::to_string(way.failed),
               milliseconds(way.view_ns.spread().median),
               milliseconds(way.pause_ns.spread().median), summed_up(way.extrinsic),
               summed_up(way.intrinsic), summed_up(way.contradictions)});
  }
  table.print(out, how);
}

Json loop_document(std::string_view technique, double rate, const LoopOutcome& outcome) {
  return {{"schema", "vmsight.study.loop/1"},
          {"technique", technique},
          {"wanted_rate", rate > 0 ? Json(rate) : Json(nullptr)},
          {"rate", outcome.rate()},
          {"views", outcome.views},
          {"missed", outcome.missed},
          {"late", outcome.late},
          {"seconds", static_cast<double>(outcome.elapsed_ns) / 1e9},
          {"view_ns", to_json(outcome.view_ns.spread())},
          {"pause_ns", to_json(outcome.pause_ns.spread())},
          {"pause_share", outcome.elapsed_ns == 0 ? 0.0
                                                  : static_cast<double>(outcome.pause_total_ns) /
                                                        static_cast<double>(outcome.elapsed_ns)},
          {"problems", outcome.problems}};
}

}  // namespace vmsight
