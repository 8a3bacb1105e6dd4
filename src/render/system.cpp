#include "render/system.h"

#include "render/escape.h"
#include "render/format.h"

namespace vmsight {
namespace {

/// "0-3,5": CPUs that are online or that are not.
std::string cpu_list(const std::vector<CpuInfo>& cpus, bool online) {
  std::vector<std::string> runs;
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    if (cpus[i].online != online) continue;
    std::size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1].online == online &&
           cpus[last + 1].cpu == cpus[last].cpu + 1) {
      ++last;
    }
    runs.push_back(last == i ? std::to_string(cpus[i].cpu)
                             : fmt::format("{}-{}", cpus[i].cpu, cpus[last].cpu));
    i = last;
  }
  return fmt::format("{}", fmt::join(runs, ","));
}

void cpu_line(Output& out, std::string_view name, std::string_view value) {
  if (!value.empty()) out.print("{:<22}{}\n", name, for_terminal(value));
}

std::string mhz(const CpuInfo& cpu) { return cpu.mhz ? fmt::format("{:.3f}", *cpu.mhz) : "?"; }
std::string cache(const CpuInfo& cpu) {
  return cpu.cache_kib ? fmt::format("{} KiB", *cpu.cache_kib) : "?";
}

}  // namespace

void print_modules(Output& out, const State& state, const TableOptions& options) {
  Table table({{"Module"}, {"Size", Align::right}, {"Used by"}});
  for (const Module& module : state.modules) {
    std::string users = fmt::format("{} {}", module.refcount, fmt::join(module.used_by, ","));
    if (module.state != "Live") users += fmt::format(" [{}]", known(module.state));
    table.row({known(module.name), std::to_string(module.size), users});
  }
  table.print(out, options);
}

void print_cpu_summary(Output& out, const State& state) {
  cpu_line(out, "Architecture:", known(state.os.machine));
  cpu_line(out, "CPU(s):", std::to_string(state.cpus.size()));
  cpu_line(out, "On-line CPU(s) list:", cpu_list(state.cpus, true));
  cpu_line(out, "Off-line CPU(s) list:", cpu_list(state.cpus, false));
  if (state.cpus.empty()) return;
  const CpuInfo& first = state.cpus.front();
  cpu_line(out, "Vendor ID:", known(first.vendor));
  cpu_line(out, "Model name:", known(first.model_name));
  cpu_line(out, "CPU MHz:", mhz(first));
  cpu_line(out, "Cache:", cache(first));
}

void print_cpu_table(Output& out, const State& state, const TableOptions& options) {
  Table table({{"CPU", Align::right},
               {"ONLINE"},
               {"MHZ", Align::right},
               {"CACHE", Align::right},
               {"VENDOR"},
               {"MODEL NAME"}});
  for (const CpuInfo& cpu : state.cpus) {
    table.row({std::to_string(cpu.cpu), cpu.online ? "yes" : "no", mhz(cpu), cache(cpu),
               known(cpu.vendor), known(cpu.model_name)});
  }
  table.print(out, options);
}

void print_uname(Output& out, const OsInfo& os, const UnameFormat& format) {
  std::vector<std::string> fields;
  const auto add = [&](bool wanted, std::string_view value) {
    if (wanted) fields.push_back(for_terminal(known(value)));
  };
  add(format.sysname, os.sysname);
  add(format.nodename, os.nodename);
  add(format.release, os.release);
  add(format.version, os.version);
  add(format.machine, os.machine);
  add(format.operating_system, "GNU/Linux");
  if (fields.empty()) add(true, os.sysname);
  out.print("{}\n", fmt::join(fields, " "));
}

}  // namespace vmsight
