#include "study/document.h"

#include <fstream>
#include <sys/utsname.h>
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
  return {{"name", row.name},     {"class", class_of(row.name)}, {"what", row.what},
          {"cost", row.cost},     {"usable", row.usable},        {"reason", for_json(row.reason)},
          {"hint", for_json(row.hint)}, {"measurements", std::move(measurements)}};
}

std::string milliseconds(double ns) { return fmt::format("{:.3g}", ns / 1e6); }

void add_row(Table& table, const Measurement& m) {
  const std::string rate = m.wanted_rate > 0 ? fmt::format("{:g}", m.wanted_rate) : "max";
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

}  // namespace

Json techniques_document(const VmInfo& info, const TechniquesOptions& options,
                         const std::vector<TechniqueRow>& rows) {
  Json techniques = Json::array();
  for (const TechniqueRow& row : rows) techniques.push_back(row_json(row));
  return {{"schema", "vmsight.study.techniques/1"},
          {"host", host_json()},
          {"vm", {{"name", for_json(info.name)},
                  {"pid", info.pid},
                  {"accelerator", to_string(info.accelerator)},
                  {"vcpus", info.vcpus},
                  {"memory_bytes", info.memory_bytes},
                  {"machine", for_json(info.machine)}}},
          {"options", {{"seconds", options.measure.seconds},
                       {"rounds", options.measure.rounds},
                       {"rates", options.rates}}},
          {"techniques", std::move(techniques)}};
}

void print_techniques(Output& out, const std::vector<TechniqueRow>& rows,
                      const TableOptions& options) {
  Table table({{"TECHNIQUE"}, {"WANTED", Align::right}, {"VIEWS/S", Align::right},
               {"VIEW MS", Align::right}, {"PAUSE MS", Align::right}, {"PAGES", Align::right},
               {"CPU MS", Align::right}, {"CPU%/HZ", Align::right}, {"MIB", Align::right},
               {"NOTE"}});
  for (const TechniqueRow& row : rows) {
    if (!row.usable) table.row({row.name, "", "-", "-", "-", "-", "-", "-", "-", row.reason});
    for (const Measurement& measured : row.measurements) add_row(table, measured);
  }
  table.print(out, options);
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
