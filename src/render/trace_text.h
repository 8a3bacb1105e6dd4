// Probe events as lines, as JSON (schema vmsight.trace/1, one object a line), and as a trace file in
// Chrome's format, which Perfetto's and Chrome's viewers read.
#pragma once

#include <map>
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

/// How a call is written: with the names of its arguments, or as strace does.
enum class TraceStyle { named, strace };

std::string trace_header();
/// "   1.204511   0 cat  412  do_sys_openat2(dfd=AT_FDCWD, filename="/etc/passwd") = 3 <41 us>", and
/// lines of extras, each ended. Times count from `start_ns`.
std::string trace_line(const ProbeEvent& event, const TraceExtras& extras, std::uint64_t start_ns,
                       TraceStyle style = TraceStyle::named);
/// Numbers are numbers in `arguments`; what they are called is in `names`. `unused` lists the
/// arguments that the text leaves out.
Json trace_json(const ProbeEvent& event, const TraceExtras& extras);

/// Counts of each probe, the most hit first, and histograms of how long calls took. Of more than a
/// few probes those that were never hit are only counted.
void print_probe_counts(Output& out, const std::vector<ProbeInfo>& probes);
Json to_json(const ProbeInfo& probe);

/// "{"traceEvents":[" event "," event ... "]}"
class PerfettoFile {
 public:
  explicit PerfettoFile(Output& out) : out_(out) { out_.write("{\"traceEvents\":[\n"); }
  void add(const ProbeEvent& event);
  void end();

 private:
  void name_thread(const ProbeTask& task);
  Output& out_;
  std::map<std::int32_t, std::string> names_;  // of threads that were named, by pid
  bool first_ = true;
};

}  // namespace vmsight
