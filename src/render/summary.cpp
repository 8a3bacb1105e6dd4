#include "render/summary.h"

#include <algorithm>
#include <map>

#include "render/escape.h"
#include "render/format.h"

namespace vmsight {
namespace {

void line(Output& out, std::string_view name, std::string_view value) {
  if (!value.empty()) out.print("{:<13}{}\n", name, for_terminal(value));
}

/// "3 tcp, 2 udp": how many records have which value.
template <typename Record, typename Get>
std::string census(const std::vector<Record>& records, Get get) {
  std::map<std::string, std::size_t> counts;
  for (const Record& record : records) ++counts[std::string(get(record))];
  std::vector<std::string> texts;
  for (const auto& [name, count] : counts) texts.push_back(fmt::format("{} {}", count, name));
  return texts.empty() ? "" : fmt::format(": {}", fmt::join(texts, ", "));
}

std::string vm_text(const VmSummary& vm) {
  std::string text = vm.name;
  if (vm.pid) text += fmt::format(" (pid {})", *vm.pid);
  if (vm.accelerator.data() != nullptr) text += fmt::format(", {}", vm.accelerator);
  if (!vm.machine.empty()) text += ", " + vm.machine;
  if (vm.vcpus) text += fmt::format(", {} vCPUs", *vm.vcpus);
  return text + ", " + byte_size(vm.memory_bytes);
}

std::string view_text(const ViewInfo& view) {
  const bool proven = view.consistency == Consistency::proof;
  std::string text = fmt::format(
      "{}{}, {} pages, {} in {}, {} read again", view.technique,
      view.paused ? " (paused)"
      : proven    ? " (proven to be of one moment)"
                  : "",
      view.pages, byte_size(view.bytes_read), duration(view.duration_ns),
      proven ? fmt::format("{} times", view.retries) : fmt::format("{} records", view.retries));
  if (!view.not_proven.empty()) text += "; not proven: " + view.not_proven;
  return text;
}

std::string devices_text(const State& state) {
  std::vector<std::string> texts;
  for (const NetDevice& device : state.net_devices) {
    std::string text(device.name);
    for (std::string_view address : device.ipv4) text += fmt::format(" {}", address);
    texts.push_back(std::move(text));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

void print_counts(Output& out, const State& state) {
  std::size_t threads = 0;
  for (const Process& process : state.processes) threads += process.threads.value_or(0);
  const auto kind = [](const Process& p) { return p.kernel_thread ? "kernel" : "user"; };
  const auto online = std::count_if(state.cpus.begin(), state.cpus.end(),
                                    [](const CpuInfo& cpu) { return cpu.online; });
  line(out, "cpus", fmt::format("{}, {} online", state.cpus.size(), online));
  line(out, "processes",
       fmt::format("{}{}; {} threads", state.processes.size(), census(state.processes, kind),
                   threads));
  line(out, "open files",
       fmt::format("{}{}", state.open_files.size(),
                   census(state.open_files, [](auto& f) { return f.type; })));
  line(out, "memory maps", fmt::format("{}", state.memory_maps.size()));
  line(out, "sockets", fmt::format("{}{}", state.sockets.size(), census(state.sockets, [](auto& s) {
                                     return s.protocol;
                                   })));
  line(out, "mounts", fmt::format("{}", state.mounts.size()));
  line(out, "modules", fmt::format("{}", state.modules.size()));
  line(out, "network", devices_text(state));
  line(out, "kernel log", fmt::format("{} records", state.kernel_log.size()));
  line(out, "cgroups", fmt::format("{}", state.cgroups.size()));
}

}  // namespace

void print_summary(Output& out, const VmSummary& vm, const State& state) {
  const OsInfo& os = state.os;
  line(out, "vm", vm_text(vm));
  line(out, "host name", os.nodename);
  line(out, "kernel", fmt::format("{} {} {} {}", os.sysname, os.release, os.version, os.machine));
  line(out, "command line", os.cmdline);
  if (os.uptime_s) line(out, "uptime", elapsed_time(*os.uptime_s * 1'000'000'000));
  print_counts(out, state);
  line(out, "view", view_text(state.view));
  for (const Problem& problem : state.problems) {
    line(out, "problem", problem.where + ": " + problem.what);
  }
}

}  // namespace vmsight
