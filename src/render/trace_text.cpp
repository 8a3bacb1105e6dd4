#include "render/trace_text.h"

#include <algorithm>

#include "render/escape.h"
#include "render/format.h"
#include "render/strace.h"
#include "render/table.h"

namespace vmsight {
namespace {

constexpr std::size_t bar_width = 40;
constexpr std::size_t few_probes = 20;  // of more, those without hits are not listed
constexpr std::size_t max_named_threads = 1u << 16;

std::string who(const ProbeTask& task) {
  if (task.task.raw() == 0) return "?";
  return task.pid == task.tgid ? fmt::to_string(task.pid)
                               : fmt::format("{}/{}", task.tgid, task.pid);
}

std::string hit_text(const ProbeEvent& event) {
  std::string text(event.function);
  if (text.empty())
    text = to_string(event.site);
  else if (event.site.offset != 0)
    text += fmt::format("+{:#x}", event.site.offset);
  if (event.site.offset != 0 || event.site.function.empty()) return for_terminal(text);
  text = abi_text(event) + for_terminal(text) + "(";
  for (const ProbeArgument& argument : event.arguments) {
    if (argument.unused) continue;
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
  if (!argument.known || (argument.is_text && argument.number == 0)) return nullptr;
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

Json names_json(const ProbeEvent& event) {
  Json all = Json::object();
  for (const ProbeArgument& argument : event.arguments) {
    if (!argument.names.empty()) all[for_json(argument.name)] = argument.names;
  }
  if (event.result != nullptr && !event.result->names.empty()) all["result"] = event.result->names;
  return all;
}

Json unused_json(const ProbeEvent& event) {
  Json all = Json::array();
  for (const ProbeArgument& argument : event.arguments) {
    if (argument.unused) all.push_back(for_json(argument.name));
  }
  return all;
}

/// The names of those texts which go on, or which are somewhere but could not be read.
Json cut_json(const ProbeEvent& event) {
  Json all = Json::array();
  for (const ProbeArgument& argument : event.arguments) {
    if (argument.cut) all.push_back(for_json(argument.name) + (argument.is_text ? "" : ".name"));
  }
  if (event.result != nullptr && event.result->cut) all.push_back("result");
  return all;
}

Json not_present_json(const ProbeEvent& event) {
  Json all = Json::array();
  for (const ProbeArgument& argument : event.arguments) {
    if (argument.is_text && !argument.known) all.push_back(for_json(argument.name));
  }
  if (event.result != nullptr && event.result->is_text && !event.result->known)
    all.push_back("result");
  return all;
}

Json registers_json(const ProbeRegisters& registers) {
  constexpr std::array names{"rax", "rbx", "rcx", "rdx",    "rsi", "rdi",    "rsp",
                             "rbp", "r8",  "r9",  "r10",    "r11", "r12",    "r13",
                             "r14", "r15", "rip", "rflags", "cr3", "gs_base"};
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
              duration(bit == 63 ? ~0ULL : 1ULL << (bit + 1)), *at, std::string(length, '@'),
              bar_width);
  }
}

}  // namespace

std::string trace_header() {
  return fmt::format("{:>12} {:>3} {:<15} {:>7}  {}\n", "TIME", "CPU", "COMM", "PID", "CALL");
}

std::string trace_line(const ProbeEvent& event, const TraceExtras& extras, std::uint64_t start_ns,
                       TraceStyle style) {
  const double time =
      static_cast<double>(static_cast<std::int64_t>(event.hit.time_ns - start_ns)) / 1e9;
  std::string text =
      fmt::format("{:>12.6f} {:>3} {:<15} {:>7}  {}\n", time, event.hit.vcpu,
                  for_terminal(event.hit.task.name()), who(event.hit.task),
                  style == TraceStyle::strace ? strace_text(event) : hit_text(event));
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
  const ProbeHit& hit = event.hit;
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
  Json names = names_json(event), unused = unused_json(event);
  if (!names.empty()) json["names"] = std::move(names);
  if (!unused.empty()) json["unused"] = std::move(unused);
  if (Json cut = cut_json(event); !cut.empty()) json["cut"] = std::move(cut);
  if (Json missing = not_present_json(event); !missing.empty())
    json["not_present"] = std::move(missing);
  if (!event.abi.empty()) json["abi"] = event.abi;
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
  Table table({{"HITS", Align::right},
               {"FILTERED", Align::right},
               {"LOST", Align::right},
               {"MISSED", Align::right},
               {"LIMITED", Align::right},
               {"FOREIGN", Align::right},
               {"PROBE"}});
  std::vector<const ProbeInfo*> order;
  for (const ProbeInfo& probe : probes) {
    const ProbeCounts& counts = probe.counts;
    const bool seen = counts.hits + counts.lost + counts.missed_returns + counts.foreign != 0;
    if (seen || probes.size() <= few_probes) order.push_back(&probe);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return a->counts.hits > b->counts.hits; });
  for (const ProbeInfo* one : order) {
    const ProbeInfo& probe = *one;
    const ProbeCounts& counts = probe.counts;
    table.row({fmt::to_string(counts.hits), fmt::to_string(counts.filtered),
               fmt::to_string(counts.lost), fmt::to_string(counts.missed_returns),
               fmt::to_string(counts.rate_limited), fmt::to_string(counts.foreign),
               probe_text(probe.site)});
  }
  table.print(out, {});
  if (order.size() < probes.size())
    out.print("{} more probes were not hit\n", probes.size() - order.size());
  for (const ProbeInfo* probe : order) print_histogram(out, *probe);
}

Json to_json(const ProbeInfo& probe) {
  const ProbeCounts& counts = probe.counts;
  Json durations = Json::array();
  for (unsigned i = 0; i < counts.durations.size(); ++i) {
    if (counts.durations[i] != 0)
      durations.push_back({{"from_ns", 1ULL << i}, {"count", counts.durations[i]}});
  }
  return {
      {"probe", probe.id},
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
      {"ended", probe.ended.empty() ? Json(nullptr) : json_text(probe.ended)},
      {"replaced", probe.site.replaced},
      {"durations", std::move(durations)}};
}

/// Once, and again when it has another name: after an execve().
void PerfettoFile::name_thread(const ProbeTask& task) {
  const std::string name(task.name());
  if (names_.size() >= max_named_threads) names_.clear();
  const auto [at, is_new] = names_.try_emplace(task.pid, name);
  if (!is_new && at->second == name) return;
  at->second = name;
  for (const char* kind : {"process_name", "thread_name"}) {
    if (kind[0] == 'p' && task.pid != task.tgid) continue;
    const Json json = {{"name", kind},
                       {"ph", "M"},
                       {"pid", task.tgid},
                       {"tid", task.pid},
                       {"args", {{"name", json_text(name)}}}};
    out_.print("{}{}", std::exchange(first_, false) ? "" : ",\n", dump(json));
  }
}

void PerfettoFile::add(const ProbeEvent& event) {
  const ProbeHit& hit = event.hit;
  const auto begin_ns = hit.time_ns - (hit.at_return ? hit.duration_ns : 0);
  Json arguments = arguments_json(event);
  const Json names = names_json(event);
  for (const auto& [name, text] : names.items()) arguments[name] = text;
  if (event.result != nullptr && event.result->names.empty())
    arguments["result"] = value_json(*event.result);
  arguments["vcpu"] = hit.vcpu;
  Json json = {{"name", event.function.empty() ? json_text(to_string(event.site))
                                               : json_text(event.function)},
               {"cat", event.site.user ? "user" : "kernel"},
               {"ph", hit.at_return ? "X" : "i"},
               {"ts", static_cast<double>(begin_ns) / 1e3},
               {"pid", hit.task.tgid},
               {"tid", hit.task.pid},
               {"args", std::move(arguments)}};
  if (hit.at_return)
    json["dur"] = static_cast<double>(hit.duration_ns) / 1e3;
  else
    json["s"] = "t";
  name_thread(hit.task);
  out_.print("{}{}", std::exchange(first_, false) ? "" : ",\n", dump(json));
}

void PerfettoFile::end() { out_.write("\n]}\n"); }

}  // namespace vmsight
