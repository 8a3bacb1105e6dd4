// Probe events as lines, as JSON (schema vmsight.trace/1, one object a line), and as a trace file in
// Chrome's format, which Perfetto's and Chrome's viewers read.
#pragma once

#include <string>
#include <vector>

#include "render/json.h"
#include "render/output.h"
#include "render/stacks.h"
#include "vmsight/probe.h"

namespace vmsight {

/// What is shown besides the event itself.
struct TraceExtras {
  std::vector<StackFrame> stack;
  std::string stack_problem;  // why it is not complete
  struct Structure {
    std::string argument, text;  // "how", "struct open_how @ 0x... = { ... }"
    Json json;
  };
  std::vector<Structure> structures;
};

std::string trace_header();
/// "   1.204511   0 cat  412  do_sys_openat2(dfd=-100, filename="/etc/passwd") = 3 <41 us>", and lines
/// of extras, each ended. Times count from `start_ns`.
std::string trace_line(const ProbeEvent& event, const TraceExtras& extras, std::uint64_t start_ns);
Json trace_json(const ProbeEvent& event, const TraceExtras& extras);

/// Counts of each probe, and histograms of how long calls took.
void print_probe_counts(Output& out, const std::vector<ProbeInfo>& probes);
Json to_json(const ProbeInfo& probe);

/// "{"traceEvents":[" event "," event ... "]}"
class PerfettoFile {
 public:
  explicit PerfettoFile(Output& out) : out_(out) { out_.write("{\"traceEvents\":[\n"); }
  void add(const ProbeEvent& event);
  void end();

 private:
  Output& out_;
  bool first_ = true;
};

}  // namespace vmsight
