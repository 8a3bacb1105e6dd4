#include "render/trace.h"

#include <algorithm>

#include "render/escape.h"
#include "render/format.h"
#include "render/table.h"

namespace vmsight {
namespace {

constexpr std::size_t bar_width = 40;

std::string who(const ProbeTask& task) {
  if (task.task.raw() == 0) return "?";
  return task.pid == task.tgid ? fmt::to_string(task.pid) : fmt::format("{}/{}", task.tgid, task.pid);
}

std::string call_text(const ProbeEvent& event) {
  std::string text(event.function);
  if (text.empty()) text = to_string(event.site);
  else if (event.site.offset != 0) text += fmt::format("+{:#x}", event.site.offset);
  if (event.site.offset != 0 || event.site.function.empty()) return for_terminal(text);
  text = for_terminal(text) + "(";
  for (const ProbeArgument& argument : event.arguments) {
    if (text.back() != '(') text += ", ";
    text += fmt::format("{}={}", for_terminal(argument.name), argument.text);
  }
  text += ")";
  if (event.result != nullptr) text += " = " + event.result->text;
  if (event.hit.at_return) text += fmt::format(" <{}>", duration(event.hit.duration_ns));
  return text;
}

/// Lines after the first stand as far in as the first does.
std::string indented(std::string_view lines) {
  std::string text;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    text += lines[i];
    if (lines[i] == '\n' && i + 1 < lines.size()) text += "    ";
  }
  return text;
}

Json value_json(const ProbeArgument& argument) {
  if (argument.is_text && argument.bytes) return json_text(*argument.bytes);
  if (!argument.known) return nullptr;
  if (argument.is_pointer || argument.type.empty()) return json_address(argument.number);
  if (argument.is_signed) return static_cast<std::int64_t>(argument.number);
  return argument.number;
}

Json arguments_json(const ProbeEvent& event) {
  Json all = Json::object();
  for (const ProbeArgument& argument : event.arguments) {
    all[for_json(argument.name)] = value_json(argument);
    // A structure's name stands beside its address.
    if (argument.bytes && !argument.is_text) {
      all[for_json(argument.name) + ".name"] = json_text(*argument.bytes);
    }
  }
  return all;
}

Json registers_json(const ProbeRegisters& registers) {
  constexpr std::array names{"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8",  "r9",
                             "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags", "cr3", "gs_base"};
  Json all = Json::object();
  for (unsigned i = 0; i < names.size(); ++i) {
    const std::uint64_t value = i < 16             ? registers.general[i]
                                : i == reg::rip    ? registers.rip
                                : i == reg::rflags ? registers.rflags
                                : i == reg::cr3    ? registers.cr3
                                                   : registers.gs_base;
    all[names[i]] = registers.has(i) ? Json(json_address(value)) : Json(nullptr);
  }
  return all;
}

std::string probe_text(const ProbeSite& site) {
  const std::string_view kind = site.user ? (site.at_return ? "uretprobe:" : "uprobe:")
                                          : (site.at_return ? "kretprobe:" : "kprobe:");
  return std::string(kind) + to_string(site);
}

void print_histogram(Output& out, const ProbeInfo& probe) {
  const auto& counts = probe.counts.durations;
  const auto is_some = [](std::uint64_t count) { return count != 0; };
  const auto first = std::find_if(counts.begin(), counts.end(), is_some);
  if (first == counts.end()) return;
  const auto last = std::find_if(counts.rbegin(), counts.rend(), is_some).base();
  const std::uint64_t most = *std::max_element(counts.begin(), counts.end());
  out.print("\n{}: time of a call\n", for_terminal(probe_text(probe.site)));
  for (auto at = first; at != last; ++at) {
    const auto bit = static_cast<unsigned>(at - counts.begin());
    const std::uint64_t length = (*at * bar_width + most - 1) / most;
    out.print("{:>10} .. {:<10} {:>8} |{:<{}}|\n", duration(1ULL << bit),
              duration(bit == 63 ? ~0ULL : 1ULL << (bit + 1)), *at, std::string(length, '@'), bar_width);
  }
}

}  // namespace

std::string trace_header() {
  return fmt::format("{:>12} {:>3} {:<15} {:>7}  {}\n", "TIME", "CPU", "COMM", "PID", "CALL");
}

std::string trace_line(const ProbeEvent& event, const TraceExtras& extras, std::uint64_t start_ns) {
  const double time = static_cast<double>(static_cast<std::int64_t>(event.hit.time_ns - start_ns)) / 1e9;
  std::string text = fmt::format("{:>12.6f} {:>3} {:<15} {:>7}  {}\n", time, event.hit.vcpu,
                                 for_terminal(event.hit.task.name()), who(event.hit.task), call_text(event));
  for (const TraceExtras::Structure& structure : extras.structures) {
    text += fmt::format("    {}: {}", structure.argument, indented(structure.text));
  }
  if (extras.stack.empty() && extras.stack_problem.empty()) return text;
  Output frames;
  TaskStack stack;
  stack.frames = extras.stack;
  stack.problem = extras.stack_problem;
  print_stacks(frames, {stack}, false);
  std::string_view rest = frames.text();
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    text += "    " + std::string(rest.substr(0, end)) + "\n";
    rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
  }
  return text;
}

Json trace_json(const ProbeEvent& event, const TraceExtras& extras) {
  const Hit& hit = event.hit;
  const bool known = hit.task.task.raw() != 0;
  Json json = {{"probe", hit.probe},
               {"time_ns", hit.time_ns},
               {"vcpu", hit.vcpu},
               {"pid", known ? Json(hit.task.pid) : Json(nullptr)},
               {"tgid", known ? Json(hit.task.tgid) : Json(nullptr)},
               {"comm", known ? json_text(hit.task.name()) : Json(nullptr)},
               {"function", json_text(event.function)},
               {"at_return", hit.at_return},
               {"arguments", arguments_json(event)},
               {"result", event.result != nullptr ? value_json(*event.result) : Json(nullptr)},
               {"duration_ns", hit.at_return ? Json(hit.duration_ns) : Json(nullptr)},
               {"registers", registers_json(hit.registers)}};
  if (event.system_call) json["system_call"] = *event.system_call;
  if (!extras.structures.empty()) {
    Json all = Json::object();
    for (const auto& structure : extras.structures) all[structure.argument] = structure.json;
    json["structures"] = std::move(all);
  }
  if (!extras.stack.empty() || !extras.stack_problem.empty()) {
    TaskStack stack;
    stack.frames = extras.stack;
    stack.problem = extras.stack_problem;
    const Json whole = to_json(stack);
    json["stack"] = {{"frames", whole["frames"]}, {"problem", whole["problem"]}};
  }
  return json;
}

void print_probe_counts(Output& out, const std::vector<ProbeInfo>& probes) {
  Table table({{"HITS", Align::right}, {"FILTERED", Align::right}, {"LOST", Align::right},
               {"MISSED", Align::right}, {"LIMITED", Align::right}, {"FOREIGN", Align::right}, {"PROBE"}});
  for (const ProbeInfo& probe : probes) {
    const ProbeCounts& counts = probe.counts;
    table.row({fmt::to_string(counts.hits), fmt::to_string(counts.filtered), fmt::to_string(counts.lost),
               fmt::to_string(counts.missed_returns), fmt::to_string(counts.rate_limited),
               fmt::to_string(counts.foreign), probe_text(probe.site)});
  }
  table.print(out, {});
  for (const ProbeInfo& probe : probes) print_histogram(out, probe);
}

Json to_json(const ProbeInfo& probe) {
  const ProbeCounts& counts = probe.counts;
  Json durations = Json::array();
  for (unsigned i = 0; i < counts.durations.size(); ++i) {
    if (counts.durations[i] != 0) durations.push_back({{"from_ns", 1ULL << i}, {"count", counts.durations[i]}});
  }
  return {{"probe", probe.id},
          {"site", json_text(probe_text(probe.site))},
          {"address", probe.site.user ? Json(nullptr) : Json(json_address(probe.site.address.raw()))},
          {"problem", probe.problem.empty() ? Json(nullptr) : json_text(probe.problem)},
          {"hits", counts.hits},
          {"filtered", counts.filtered},
          {"told", counts.told},
          {"lost", counts.lost},
          {"missed_returns", counts.missed_returns},
          {"rate_limited", counts.rate_limited},
          {"foreign", counts.foreign},
          {"reloads", counts.reloads},
          {"absent", counts.absent},
          {"stormed", counts.stormed},
          {"durations", std::move(durations)}};
}

void PerfettoFile::add(const ProbeEvent& event) {
  const Hit& hit = event.hit;
  const auto begin_ns = hit.time_ns - (hit.at_return ? hit.duration_ns : 0);
  Json arguments = arguments_json(event);
  if (event.result != nullptr) arguments["result"] = value_json(*event.result);
  arguments["vcpu"] = hit.vcpu;
  Json json = {{"name", event.function.empty() ? json_text(to_string(event.site)) : json_text(event.function)},
               {"cat", event.site.user ? "user" : "kernel"},
               {"ph", hit.at_return ? "X" : "i"},
               {"ts", static_cast<double>(begin_ns) / 1e3},
               {"pid", hit.task.tgid},
               {"tid", hit.task.pid},
               {"args", std::move(arguments)}};
  if (hit.at_return) json["dur"] = static_cast<double>(hit.duration_ns) / 1e3;
  else json["s"] = "t";
  const Json name = {{"name", "thread_name"}, {"ph", "M"}, {"pid", hit.task.tgid}, {"tid", hit.task.pid},
                     {"args", {{"name", json_text(hit.task.name())}}}};
  out_.print("{}{},\n{}", first_ ? "" : ",\n", dump(name), dump(json));
  first_ = false;
}

void PerfettoFile::end() { out_.write("\n]}\n"); }

}  // namespace vmsight
