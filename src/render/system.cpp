#include "render/system.h"

#include <algorithm>
#include <map>
#include <set>

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
    runs.push_back(
        last == i ? std::to_string(cpus[i].cpu)
                  : fmt::format("{}{}{}", cpus[i].cpu, last == i + 1 ? ',' : '-', cpus[last].cpu));
    i = last;
  }
  return fmt::format("{}", fmt::join(runs, ","));
}

/// Lines of a name and what it has: below headings and each other for people, or plain for programs.
class Summary {
 public:
  Summary(Output& out, bool hierarchic) : out_(out), hierarchic_(hierarchic) {}

  void heading(std::string_view name) {
    if (hierarchic_) out_.print("{}\n", name);
  }
  void line(std::string_view name, std::string_view value) {
    if (!hierarchic_) name.remove_prefix(std::min(name.find_first_not_of(' '), name.size()));
    if (!value.empty()) out_.print("{:<24} {}\n", name, for_terminal(value));
  }
  bool is_hierarchic() const { return hierarchic_; }

 private:
  Output& out_;
  bool hierarchic_;
};

template <typename T>
std::string text_of(const std::optional<T>& value) {
  return value ? fmt::format("{}", *value) : "";
}

std::string mhz(const CpuInfo& cpu) { return cpu.mhz ? fmt::format("{:.3f}", *cpu.mhz) : "?"; }

bool has_flag(const CpuInfo& cpu, std::string_view flag) {
  return std::find(cpu.flags.begin(), cpu.flags.end(), flag) != cpu.flags.end();
}

/// How the CPUs are arranged: as lscpu counts, of those that are online.
struct Topology {
  std::set<unsigned> sockets, nodes;
  std::set<std::pair<unsigned, unsigned>> cores;  // socket, core
  std::size_t cpus = 0;

  explicit Topology(const std::vector<CpuInfo>& all) {
    for (const CpuInfo& cpu : all) {
      if (!cpu.online) continue;
      ++cpus;
      sockets.insert(cpu.socket.value_or(0));
      cores.emplace(cpu.socket.value_or(0), cpu.core.value_or(cpu.cpu));
      nodes.insert(cpu.node.value_or(0));
    }
  }
  std::size_t threads_per_core() const { return cores.empty() ? 0 : cpus / cores.size(); }
  std::size_t cores_per_socket() const {
    return sockets.empty() ? 0 : cores.size() / sockets.size();
  }
  /// The number of a core among all, by which lscpu names it.
  std::size_t core_index(const CpuInfo& cpu) const {
    const std::pair key(cpu.socket.value_or(0), cpu.core.value_or(cpu.cpu));
    return static_cast<std::size_t>(std::distance(cores.begin(), cores.find(key)));
  }
};

std::string cache_name(const CpuCache& cache) {
  std::string name = fmt::format("L{}", cache.level);
  if (cache.type == "Data") name += 'd';
  if (cache.type == "Instruction") name += 'i';
  return name;
}

/// The caches of all CPUs, each once however many share it: name -> size, number.
std::map<std::string, std::pair<std::uint64_t, std::size_t>> caches_of(
    const std::vector<CpuInfo>& cpus) {
  std::map<std::string, std::pair<std::uint64_t, std::size_t>> sums;
  for (const CpuInfo& cpu : cpus) {
    for (const CpuCache& cache : cpu.caches) {
      if (!cache.cpus.empty() && cache.cpus.front() != cpu.cpu) continue;
      auto& [size, count] = sums[cache_name(cache)];
      size += cache.size_bytes;
      ++count;
    }
  }
  return sums;
}

void print_caches(Summary& summary, const std::vector<CpuInfo>& cpus) {
  const auto caches = caches_of(cpus);
  if (caches.empty()) return;
  summary.heading("Caches (sum of all):");
  for (const auto& [name, sum] : caches) {
    summary.line(fmt::format("  {}{}:", name, summary.is_hierarchic() ? "" : " cache"),
                 fmt::format("{} ({} instance{})", byte_size(sum.first), sum.second,
                             sum.second == 1 ? "" : "s"));
  }
}

void print_nodes(Summary& summary, const std::vector<CpuInfo>& cpus, const Topology& topology) {
  summary.heading("NUMA:");
  summary.line("  NUMA node(s):", std::to_string(topology.nodes.size()));
  for (const unsigned node : topology.nodes) {
    std::vector<CpuInfo> own;
    for (const CpuInfo& cpu : cpus) {
      if (cpu.online && cpu.node.value_or(0) == node) own.push_back(cpu);
    }
    summary.line(fmt::format("  NUMA node{} CPU(s):", node), cpu_list(own, true));
  }
}

void print_model(Summary& summary, const CpuInfo& cpu, const Topology& topology) {
  summary.line("Vendor ID:", known(cpu.vendor));
  summary.line("  Model name:", known(cpu.model_name));
  summary.line("    CPU family:", text_of(cpu.family));
  summary.line("    Model:", text_of(cpu.model));
  summary.line("    Thread(s) per core:", std::to_string(topology.threads_per_core()));
  summary.line("    Core(s) per socket:", std::to_string(topology.cores_per_socket()));
  summary.line("    Socket(s):", std::to_string(topology.sockets.size()));
  summary.line("    Stepping:", text_of(cpu.stepping));
  summary.line("    BogoMIPS:", cpu.bogomips ? fmt::format("{:.2f}", *cpu.bogomips) : "");
  summary.line("    CPU MHz:", mhz(cpu));
  summary.line("    Flags:", fmt::format("{}", fmt::join(cpu.flags, " ")));
  if (has_flag(cpu, "vmx")) summary.line("  Virtualization:", "VT-x");
  if (has_flag(cpu, "svm")) summary.line("  Virtualization:", "AMD-V");
}

/// The sizes of a CPU's caches in the order of their levels, or which cache of all it is.
std::string cache_index(const std::vector<CpuInfo>& cpus, const CpuInfo& cpu,
                        std::string_view name) {
  std::set<unsigned> firsts;
  for (const CpuInfo& one : cpus) {
    for (const CpuCache& cache : one.caches) {
      if (cache_name(cache) == name && !cache.cpus.empty()) firsts.insert(cache.cpus.front());
    }
  }
  for (const CpuCache& cache : cpu.caches) {
    if (cache_name(cache) != name || cache.cpus.empty()) continue;
    return std::to_string(std::distance(firsts.begin(), firsts.find(cache.cpus.front())));
  }
  return "-";
}

std::string cache_indices(const std::vector<CpuInfo>& cpus, const CpuInfo& cpu, const char* mark) {
  std::vector<std::string> indices;
  for (const auto& [name, sum] : caches_of(cpus)) indices.push_back(cache_index(cpus, cpu, name));
  return fmt::format("{}", fmt::join(indices, mark));
}

std::string cache_names(const std::vector<CpuInfo>& cpus, const char* mark) {
  std::vector<std::string> names;
  for (const auto& [name, sum] : caches_of(cpus)) names.push_back(name);
  return fmt::format("{}", fmt::join(names, mark));
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

void print_cpu_summary(Output& out, const State& state, bool hierarchic) {
  Summary summary(out, hierarchic);
  const Topology topology(state.cpus);
  summary.line("Architecture:", known(state.os.machine));
  if (!state.cpus.empty()) {
    const CpuInfo& first = state.cpus.front();
    const bool is_64 = has_flag(first, "lm");
    summary.line("  CPU op-mode(s):", is_64 ? "32-bit, 64-bit" : "32-bit");
    if (first.physical_bits != 0) {
      summary.line("  Address sizes:", fmt::format("{} bits physical, {} bits virtual",
                                                   first.physical_bits, first.virtual_bits));
    }
    summary.line("  Byte Order:", "Little Endian");
  }
  summary.line("CPU(s):", std::to_string(state.cpus.size()));
  summary.line("  On-line CPU(s) list:", cpu_list(state.cpus, true));
  summary.line("  Off-line CPU(s) list:", cpu_list(state.cpus, false));
  if (state.cpus.empty()) return;
  print_model(summary, state.cpus.front(), topology);
  print_caches(summary, state.cpus);
  print_nodes(summary, state.cpus, topology);
  const auto& bugs = state.cpus.front().bugs;
  if (!bugs.empty()) summary.line("Bugs:", fmt::format("{}", fmt::join(bugs, " ")));
}

void print_cpu_table(Output& out, const State& state, const TableOptions& options) {
  const Topology topology(state.cpus);
  const std::string caches = cache_names(state.cpus, ":");
  std::vector<Column> columns = {{"CPU", Align::right},
                                 {"NODE", Align::right},
                                 {"SOCKET", Align::right},
                                 {"CORE", Align::right}};
  if (!caches.empty()) columns.push_back({caches});
  columns.push_back({"ONLINE", Align::right});
  columns.push_back({"MHZ", Align::right});
  Table table(std::move(columns));
  for (const CpuInfo& cpu : state.cpus) {
    const auto online = [&](const std::string& text) { return cpu.online ? text : "-"; };
    table.row({std::to_string(cpu.cpu), online(text_of(cpu.node)), online(text_of(cpu.socket)),
               online(std::to_string(topology.core_index(cpu)))});
    if (!caches.empty()) table.cell(online(cache_indices(state.cpus, cpu, ":")));
    table.row({cpu.online ? "yes" : "no", mhz(cpu)});
  }
  table.print(out, options);
}

void print_cpu_lines(Output& out, const State& state) {
  const Topology topology(state.cpus);
  const std::string caches = cache_names(state.cpus, ",");
  out.print("# CPU,Core,Socket,Node{}{}\n", caches.empty() ? "" : ",,", caches);
  for (const CpuInfo& cpu : state.cpus) {
    if (!cpu.online) {
      out.print("{},,,{}\n", cpu.cpu, caches.empty() ? "" : ",,");
      continue;
    }
    out.print("{},{},{},{}{}{}\n", cpu.cpu, topology.core_index(cpu), text_of(cpu.socket),
              text_of(cpu.node), caches.empty() ? "" : ",,", cache_indices(state.cpus, cpu, ","));
  }
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
